//! What a running system says about itself: the types of the API's answers, used by those who give and who read them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The whole of `GET /v1/status`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Status {
    /// The name of this run; two copies of one system have two.
    pub name: String,
    pub system: String,
    pub file: String,
    pub pid: u32,
    pub started_unix_ms: u64,
    /// When this was true.
    pub unix_ms: u64,
    /// Grows with every change of what is below.
    pub revision: u64,
    /// Everything is ready, completed, or stopped by wish.
    pub settled: bool,
    pub addresses: Vec<Address>,
    pub services: Vec<ServiceStatus>,
    pub traffic: Vec<TrafficStatus>,
    pub scenario: Option<ScenarioStatus>,
    /// Mistakes of the newest file, when it was refused and the one before is still in force.
    pub refused: Vec<String>,
    /// How services that call others hand on the trace of what they serve; those who forget come first.
    #[serde(default)]
    pub handing: Vec<Handing>,
}

/// Of the calls a service made while serving: how many carried the trace of a request it served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Handing {
    pub service: String,
    pub calls: u64,
    pub joined: u64,
    /// Without context, made while exactly one request was served, which therefore caused them.
    pub inferred: u64,
    /// False when it hands on too little, on enough calls to say so.
    pub ok: bool,
}

/// Where something can be reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Address {
    /// `gateway`, `api`, `map`, `zipkin`, `otlp`.
    pub kind: String,
    pub name: String,
    pub url: String,
    /// Said when it is not where the file wants it.
    pub note: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ServiceStatus {
    pub name: String,
    pub kind: String,
    pub team: Option<String>,
    pub wanted: u32,
    pub synthetic: bool,
    /// What its instances wait for before they start, in words.
    pub waits_for: Vec<String>,
    pub instances: Vec<InstanceStatus>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct InstanceStatus {
    /// `web#0`
    pub name: String,
    pub index: u32,
    /// `waiting`, `starting`, `ready`, `unhealthy`, `draining`, `stopping`, `restarting`, `failed`, `completed`, `stopped`.
    pub state: String,
    /// Why it is not ready.
    pub detail: String,
    pub pid: Option<u32>,
    pub port: Option<u16>,
    pub version: String,
    /// `eu-west/a`
    pub place: String,
    pub restarts: u32,
    /// Since this life began.
    pub age_ms: u64,
    /// Of its process and everything below it.
    pub cpu_ms: Option<u64>,
    /// Of one core, over the last seconds: 1.5 is one and a half cores.
    #[serde(default)]
    pub cpu_cores: Option<f64>,
    pub memory_bytes: Option<u64>,
    /// Set for a synthetic instance, which has no process of its own: so many share isobar's, and the three numbers
    /// above are an equal share of it.
    #[serde(default)]
    pub shared_by: Option<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct TrafficStatus {
    pub name: String,
    pub to: String,
    pub running: bool,
    pub rate_per_second: f64,
    pub sent: u64,
    pub failed: u64,
    /// Refused by ourselves because too many were on their way: failures, too.
    pub not_sent: u64,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ScenarioStatus {
    pub name: String,
    /// Who started it.
    #[serde(default)]
    pub who: String,
    pub at_ms: u64,
    pub lasts_ms: u64,
    /// What is in force now, in the file's words.
    pub in_force: Vec<String>,
    /// Services that are not as they should be on account of it.
    #[serde(default)]
    pub troubled: Vec<String>,
}
