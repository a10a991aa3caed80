//! `/hystrix.stream`, so that the Hystrix dashboards people still have work against us.
//!
//! A command is an edge's operation, a pool is what limits calls to a destination. Counts are over the rolling ten
//! seconds. `reportingHosts` is 1 on purpose: the numbers are sums over all our proxies already, and the dashboard divides
//! its averaged percentiles by it.

use crate::json::Writer;
use units::{Histogram, Nanos};

/// Headers of the stream's answer.
pub const HEADERS: [(&str, &str); 3] = [
    ("content-type", "text/event-stream;charset=UTF-8"),
    ("cache-control", "no-cache, no-store, max-age=0, must-revalidate"),
    ("pragma", "no-cache"),
];
/// Between events, to notice a client that went away.
pub const PING: &str = "ping: \n\n";
/// One event for each command and pool, and a ping, this often.
pub const EVERY: Nanos = Nanos::from_millis(500);
/// Further ones are answered 503.
pub const CONNECTIONS_MAX: usize = 5;

#[derive(Clone, Debug, Default)]
pub struct Command {
    pub name: String,
    pub group: String,
    pub pool: String,
    pub breaker_open: bool,
    /// Over the rolling window.
    pub success: u64,
    pub failure: u64,
    pub timeout: u64,
    pub short_circuited: u64,
    pub rejected: u64,
    pub bad_request: u64,
    pub fallback_success: u64,
    pub in_flight: u64,
    pub in_flight_max: u64,
    pub latency: Histogram,
    pub settings: CommandSettings,
}

#[derive(Clone, Copy, Debug)]
pub struct CommandSettings {
    pub request_volume_threshold: u64,
    pub sleep_window: Nanos,
    pub error_threshold_percent: u64,
    pub breaker_enabled: bool,
    pub timeout: Nanos,
    pub concurrency_max: u64,
    pub window: Nanos,
}

impl Default for CommandSettings {
    /// Hystrix' own.
    fn default() -> Self {
        Self {
            request_volume_threshold: 20,
            sleep_window: Nanos::from_secs(5),
            error_threshold_percent: 50,
            breaker_enabled: true,
            timeout: Nanos::from_secs(1),
            concurrency_max: 10,
            window: Nanos::from_secs(10),
        }
    }
}

impl Command {
    /// Failures, time-outs and rejections; short circuits and bad requests are not errors.
    pub const fn errors(&self) -> u64 {
        self.failure + self.timeout + self.rejected
    }

    pub const fn requests(&self) -> u64 {
        self.success + self.errors()
    }

    /// Cut to an integer, as Hystrix does.
    pub const fn error_percent(&self) -> u64 {
        match self.requests() {
            0 => 0,
            requests => self.errors() * 100 / requests,
        }
    }

    /// One `data:` event. `now` is since the Unix epoch.
    pub fn event(&self, now: Nanos) -> String {
        let mut json = Writer::new();
        json.object(|json| {
            json.key("type").text("HystrixCommand");
            json.key("name").text(&self.name);
            json.key("group").text(&self.group);
            json.key("currentTime").u64(millis(now));
            json.key("isCircuitBreakerOpen").bool(self.breaker_open);
            json.key("errorPercentage").u64(self.error_percent());
            json.key("errorCount").u64(self.errors());
            json.key("requestCount").u64(self.requests());
            for (name, value) in [
                ("BadRequests", self.bad_request),
                ("CollapsedRequests", 0),
                ("Emit", 0),
                ("ExceptionsThrown", self.errors()),
                ("Failure", self.failure),
                ("FallbackEmit", 0),
                ("FallbackFailure", 0),
                ("FallbackMissing", 0),
                ("FallbackRejection", 0),
                ("FallbackSuccess", self.fallback_success),
                ("ResponsesFromCache", 0),
                ("SemaphoreRejected", self.rejected),
                ("ShortCircuited", self.short_circuited),
                ("Success", self.success),
                ("ThreadPoolRejected", 0),
                ("Timeout", self.timeout),
            ] {
                json.key(&format!("rollingCount{name}")).u64(value);
            }
            json.key("currentConcurrentExecutionCount").u64(self.in_flight);
            json.key("rollingMaxConcurrentExecutionCount").u64(self.in_flight_max);
            // We do not separate running from waiting to run: both names get the whole time.
            for name in ["latencyExecute", "latencyTotal"] {
                let mean = self.latency.mean().unwrap_or(0.0) / 1e6;
                json.key(&format!("{name}_mean")).u64(mean.round() as u64);
                json.key(name).object(|json| self.percentiles(json));
            }
            let settings = &self.settings;
            let property = |name: &str| format!("propertyValue_{name}");
            for (name, value) in [
                ("circuitBreakerRequestVolumeThreshold", settings.request_volume_threshold),
                ("circuitBreakerSleepWindowInMilliseconds", millis(settings.sleep_window)),
                ("circuitBreakerErrorThresholdPercentage", settings.error_threshold_percent),
                ("executionIsolationThreadTimeoutInMilliseconds", millis(settings.timeout)),
                ("executionTimeoutInMilliseconds", millis(settings.timeout)),
                ("executionIsolationSemaphoreMaxConcurrentRequests", settings.concurrency_max),
                ("fallbackIsolationSemaphoreMaxConcurrentRequests", settings.concurrency_max),
                ("metricsRollingStatisticalWindowInMilliseconds", millis(settings.window)),
            ] {
                json.key(&property(name)).u64(value);
            }
            for (name, value) in [
                ("circuitBreakerForceOpen", false),
                ("circuitBreakerForceClosed", false),
                ("circuitBreakerEnabled", settings.breaker_enabled),
                ("executionIsolationThreadInterruptOnTimeout", true),
                ("requestCacheEnabled", false),
                ("requestLogEnabled", false),
            ] {
                json.key(&property(name)).bool(value);
            }
            json.key(&property("executionIsolationStrategy")).text("SEMAPHORE");
            json.key(&property("executionIsolationThreadPoolKeyOverride")).raw(b"null");
            json.key("reportingHosts").u64(1);
            json.key("threadPool").text(&self.pool);
        });
        format!("data: {}\n\n", json.into_text())
    }

    fn percentiles(&self, json: &mut Writer) {
        for percentile in ["0", "25", "50", "75", "90", "95", "99", "99.5", "100"] {
            let q = percentile.parse::<f64>().expect("a literal") / 100.0;
            json.key(percentile).u64(self.latency.quantile(q).map_or(0, millis));
        }
    }
}

/// What limits the calls to one destination.
#[derive(Clone, Debug, Default)]
pub struct Pool {
    pub name: String,
    pub active: u64,
    pub active_max: u64,
    pub size: u64,
    pub queued: u64,
    pub queue_max: u64,
    pub executed: u64,
    pub rejected: u64,
}

impl Pool {
    pub fn event(&self, now: Nanos) -> String {
        let mut json = Writer::new();
        json.object(|json| {
            json.key("type").text("HystrixThreadPool");
            json.key("name").text(&self.name);
            json.key("currentTime").u64(millis(now));
            for (name, value) in [
                ("currentActiveCount", self.active),
                ("currentCompletedTaskCount", self.executed),
                ("currentCorePoolSize", self.size),
                ("currentLargestPoolSize", self.active_max),
                ("currentMaximumPoolSize", self.size),
                ("currentPoolSize", self.size),
                ("currentQueueSize", self.queued),
                ("currentTaskCount", self.executed + self.active + self.queued),
                ("rollingCountThreadsExecuted", self.executed),
                ("rollingMaxActiveThreads", self.active_max),
                ("rollingCountCommandRejections", self.rejected),
                ("propertyValue_queueSizeRejectionThreshold", self.queue_max),
                ("propertyValue_metricsRollingStatisticalWindowInMilliseconds", 10_000),
                ("reportingHosts", 1),
            ] {
                json.key(name).u64(value);
            }
        });
        format!("data: {}\n\n", json.into_text())
    }
}

const fn millis(time: Nanos) -> u64 {
    time.0 / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn parse(event: &str) -> Value {
        let json =
            event.strip_prefix("data: ").and_then(|rest| rest.strip_suffix("\n\n")).expect("an SSE event");
        assert!(!json.contains('\n'), "one line");
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn a_command_has_every_key_a_dashboard_reads() {
        let mut command = Command {
            name: "web>cart".into(),
            group: "cart".into(),
            pool: "cart".into(),
            breaker_open: true,
            success: 90,
            failure: 5,
            timeout: 3,
            rejected: 1,
            short_circuited: 40,
            bad_request: 7,
            ..Command::default()
        };
        (1..=100).for_each(|ms| command.latency.record(Nanos::from_millis(ms)));
        let event = parse(&command.event(Nanos::from_secs(5)));
        assert_eq!(
            (&event["errorCount"], &event["requestCount"], &event["errorPercentage"]),
            (&9.into(), &99.into(), &9.into())
        );
        assert_eq!(event["currentTime"], 5_000);
        assert!(event["latencyTotal"]["99.5"].as_u64().is_some_and(|it| (98..=101).contains(&it)));
        // The names of the format, spelt out once more: a dashboard shows a blank for one that is missing.
        for key in "name group currentTime isCircuitBreakerOpen errorPercentage errorCount requestCount currentConcurrentExecutionCount rollingMaxConcurrentExecutionCount latencyExecute_mean latencyExecute latencyTotal_mean latencyTotal reportingHosts threadPool".split(' ') {
            assert!(!event[key].is_null(), "{key}");
        }
        for key in "BadRequests CollapsedRequests Emit ExceptionsThrown Failure FallbackEmit FallbackFailure FallbackMissing FallbackRejection FallbackSuccess ResponsesFromCache SemaphoreRejected ShortCircuited Success ThreadPoolRejected Timeout".split(' ') {
            assert!(event[format!("rollingCount{key}")].is_u64(), "{key}");
        }
        for key in "circuitBreakerRequestVolumeThreshold circuitBreakerSleepWindowInMilliseconds circuitBreakerErrorThresholdPercentage circuitBreakerForceOpen circuitBreakerForceClosed circuitBreakerEnabled executionIsolationStrategy executionIsolationThreadTimeoutInMilliseconds executionTimeoutInMilliseconds executionIsolationThreadInterruptOnTimeout executionIsolationThreadPoolKeyOverride executionIsolationSemaphoreMaxConcurrentRequests fallbackIsolationSemaphoreMaxConcurrentRequests metricsRollingStatisticalWindowInMilliseconds requestCacheEnabled requestLogEnabled".split(' ') {
            assert!(event.get(format!("propertyValue_{key}")).is_some(), "{key}");
        }
    }

    #[test]
    fn a_pool_has_every_key_too() {
        let event = parse(
            &Pool { name: "cart".into(), active: 3, executed: 10, ..Pool::default() }.event(Nanos::ZERO),
        );
        for key in "currentActiveCount currentCompletedTaskCount currentCorePoolSize currentLargestPoolSize currentMaximumPoolSize currentPoolSize currentQueueSize currentTaskCount rollingCountThreadsExecuted rollingMaxActiveThreads rollingCountCommandRejections propertyValue_queueSizeRejectionThreshold propertyValue_metricsRollingStatisticalWindowInMilliseconds reportingHosts".split(' ') {
            assert!(event[key].is_u64(), "{key}");
        }
        assert_eq!(event["currentTaskCount"], 13);
    }
}
