//! The proxy, as the runner holds it.

use proxy::config::Config;
use proxy::{Options, Proxy};

/// Starts with the first snapshot, so that its doors are open when the first service is.
#[derive(Debug, Default)]
pub(super) struct Plane {
    proxy: Option<Proxy>,
}

impl Plane {
    /// The whole snapshot, every time. What is refused changes nothing, and the reason is said.
    pub(super) fn apply(&mut self, config: Config) -> Result<(), String> {
        let result = match &self.proxy {
            Some(proxy) => proxy.reload(config),
            None => Proxy::start(config, Options::default()).map(|proxy| self.proxy = Some(proxy)),
        };
        result.map_err(|error| error.to_string())
    }

    /// Ends it without waiting for clients: the services behind it are gone already.
    pub(super) fn stop(&mut self) {
        self.proxy = None;
    }
}
