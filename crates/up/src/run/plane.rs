//! The proxy, as the runner holds it.

use proxy::config::Config;
use proxy::observe::Observer;
use proxy::{Options, Proxy};
use telemetry::metrics::Registry;

/// Starts with the first snapshot, so that its doors are open when the first service is.
#[derive(Debug, Default)]
pub(super) struct Plane {
    proxy: Option<Proxy>,
}

impl Plane {
    /// The whole snapshot, every time. What is refused changes nothing, and the reason is said. The first one starts
    /// the proxy, and is answered with a way to watch it.
    pub(super) fn apply(&mut self, config: Config, series: &Registry) -> Result<Option<Observer>, String> {
        if let Some(proxy) = &self.proxy {
            return proxy.reload(config).map(|()| None).map_err(|error| error.to_string());
        }
        let proxy = Proxy::start(config, Options { series: Some(series.clone()), ..Options::default() })
            .map_err(|error| error.to_string())?;
        let observer = proxy.observer();
        self.proxy = Some(proxy);
        Ok(Some(observer))
    }

    /// Ends it without waiting for clients: the services behind it are gone already.
    pub(super) fn stop(&mut self) {
        self.proxy = None;
    }
}
