//! The proxy, as the runner holds it.

use proxy::config::Config;

#[derive(Debug)]
pub struct Plane {}

impl Plane {
    pub fn start() -> std::io::Result<Self> {
        Ok(Self {})
    }

    /// The whole snapshot, every time. What is refused changes nothing, and the reason is said.
    pub fn apply(&self, config: Config) -> Result<(), String> {
        config.check().map_err(|it| it.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))
    }

    pub fn stop(&mut self) {}
}
