//! `autoscale`: one rule, in the words of the system it comes from.

use super::Resolver;
use super::fields::Fields;
use crate::system::{Autoscale, ScaleRule, ScaleStep};
use crate::text::Node;
use units::{Nanos, Percent};

impl<'n> Resolver<'n, '_> {
    pub(super) fn autoscale(&mut self, node: &'n Node) -> Option<Autoscale> {
        let mut f = self.fields(node, "`autoscale`")?;
        let min = f.get("min").and_then(|it| self.count(it, "`min`", 0..=100_000));
        let max_node = f.require(self, "max", "10");
        let max = max_node.and_then(|it| self.count(it, "`max`", 1..=100_000));
        let entry = f.exactly_one(self, &["hpa", "knative", "target_tracking", "simple", "step"]);
        let rule = entry.and_then(|entry| {
            let mut inner = self.fields(&entry.value, "a rule of scaling")?;
            let rule = match &*entry.key {
                "hpa" => self.hpa(&mut inner),
                "knative" => self.knative(&mut inner),
                "target_tracking" => self.target_tracking(&mut inner),
                "simple" => self.simple(&mut inner),
                _ => self.step_scaling(&mut inner),
            };
            inner.finish(self);
            rule
        });
        f.finish(self);
        let (min, max) = (min.map_or(1, |it| it.value), max?.value);
        if min > max {
            self.impossible(
                max_node.map_or(node.span, |it| it.span),
                format!("`max` ({max}) is below `min` ({min})"),
                "too small",
            );
            return None;
        }
        Some(Autoscale { min, max, rule: rule?, span: node.span })
    }

    fn time(&mut self, f: &mut Fields<'n>, key: &'static str, built_in: Nanos) -> Nanos {
        f.get(key).and_then(|it| self.quantity::<Nanos>(it)).map_or(built_in, |it| it.value)
    }

    fn interval(&mut self, f: &mut Fields<'n>, key: &'static str, built_in: Nanos) -> Nanos {
        f.get(key).and_then(|it| self.positive::<Nanos>(it, "an interval")).map_or(built_in, |it| it.value)
    }

    fn target(&mut self, f: &mut Fields<'n>, key: &'static str, built_in: u64) -> Percent {
        let target = f.get(key).and_then(|it| {
            let share = self.share(it, "a target")?;
            if share.value == Percent::ZERO {
                self.impossible(it.span, "a target of 0% scales without end", "zero");
            }
            Some(share)
        });
        target.map_or(Percent::from_whole(built_in), |it| it.value)
    }

    fn hpa(&mut self, f: &mut Fields<'n>) -> Option<ScaleRule> {
        let target = self.target(f, "target", 70);
        let sync = self.interval(f, "sync", Nanos::from_secs(15));
        let tolerance = f.get("tolerance").and_then(|it| self.share(it, "a tolerance"));
        let tolerance = tolerance.map_or(Percent::from_whole(10), |it| it.value);
        let down_window = self.time(f, "down_window", Nanos::from_secs(300));
        Some(ScaleRule::Hpa { target, sync, tolerance, down_window })
    }

    fn knative(&mut self, f: &mut Fields<'n>) -> Option<ScaleRule> {
        let concurrency = f.get("target_concurrency");
        let concurrency = concurrency.and_then(|it| self.count(it, "`target_concurrency`", 1..=1_000_000));
        let utilization = self.target(f, "utilization", 70);
        let stable_window = self.interval(f, "stable_window", Nanos::from_secs(60));
        let panic_window = self.target(f, "panic_window", 10);
        let target_concurrency = concurrency.map_or(100, |it| it.value);
        Some(ScaleRule::Knative { target_concurrency, utilization, stable_window, panic_window })
    }

    fn target_tracking(&mut self, f: &mut Fields<'n>) -> Option<ScaleRule> {
        let target = self.target(f, "target", 50);
        let period = self.interval(f, "period", Nanos::from_secs(60));
        let cooldown = self.time(f, "cooldown", Nanos::from_secs(300));
        let warmup = self.time(f, "warmup", Nanos::from_secs(60));
        Some(ScaleRule::TargetTracking { target, period, cooldown, warmup })
    }

    fn simple(&mut self, f: &mut Fields<'n>) -> Option<ScaleRule> {
        let above = self.target(f, "above", 70);
        let adjustment = f.require(self, "adjustment", "1");
        let adjustment = adjustment.and_then(|it| self.signed(it, "`adjustment`"));
        let period = self.interval(f, "period", Nanos::from_secs(60));
        let evaluation_periods = self.evaluation_periods(f, 3);
        let cooldown = self.time(f, "cooldown", Nanos::from_secs(300));
        let adjustment = adjustment?.value;
        Some(ScaleRule::Simple { above, adjustment, period, evaluation_periods, cooldown })
    }

    fn evaluation_periods(&mut self, f: &mut Fields<'n>, built_in: u32) -> u32 {
        let periods = f.get("evaluation_periods");
        periods
            .and_then(|it| self.count(it, "`evaluation_periods`", 1..=1_000))
            .map_or(built_in, |it| it.value)
    }

    fn step_scaling(&mut self, f: &mut Fields<'n>) -> Option<ScaleRule> {
        let threshold = self.target(f, "threshold", 60);
        let mut steps = Vec::new();
        if let Some(list) = f.require(self, "steps", "[{lower: 0, adjustment: 1}]") {
            for item in self.list(list, "steps") {
                let Some(mut s) = self.fields(item, "a step of scaling") else { continue };
                let lower = s.get("lower").and_then(|it| self.signed(it, "`lower`")).map(|it| it.value);
                let upper = s.get("upper").and_then(|it| self.signed(it, "`upper`")).map(|it| it.value);
                let adjustment = s.require(self, "adjustment", "1");
                let adjustment = adjustment.and_then(|it| self.signed(it, "`adjustment`"));
                s.finish(self);
                if let (Some(low), Some(high)) = (lower, upper)
                    && low >= high
                {
                    self.impossible(
                        item.span,
                        format!("`upper` ({high}) is not above `lower` ({low})"),
                        "empty range",
                    );
                }
                if let Some(adjustment) = adjustment {
                    steps.push(ScaleStep { lower, upper, adjustment: adjustment.value });
                }
            }
        }
        let period = self.interval(f, "period", Nanos::from_secs(60));
        let evaluation_periods = self.evaluation_periods(f, 1);
        let warmup = self.time(f, "warmup", Nanos::from_secs(60));
        Some(ScaleRule::Step { threshold, steps, period, evaluation_periods, warmup })
    }
}
