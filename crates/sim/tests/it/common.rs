//! From a file's text to a forecast, in the one place that knows the API.

use sim::{Forecast, Options, Plan};

#[track_caller]
pub(crate) fn plan(text: &str) -> Plan {
    let loaded = model::load::load_str(text);
    let system = match loaded.system() {
        Some(system) => system,
        None => panic!("{:#?}\n{text}", loaded.diagnostics),
    };
    match sim::compile(system, &|file| Err(format!("`{file}` is not read in tests"))) {
        Ok(plan) => plan,
        Err(errors) => panic!("{errors:#?}\n{text}"),
    }
}

#[track_caller]
pub(crate) fn run<'p>(plan: &'p Plan, options: &Options) -> Forecast<'p> {
    match sim::forecast(plan, options, &|_| true) {
        Ok(forecast) => forecast,
        Err(error) => panic!("{error}"),
    }
}
