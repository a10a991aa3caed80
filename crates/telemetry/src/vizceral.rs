//! Traffic in the nested JSON that Vizceral draws: the world, its regions, their services.
//!
//! Every region shows its own calls; a call across regions shows between the regions. Calls from nobody we know come from
//! `INTERNET`, the entry node of each level.

use crate::json::Writer;
use std::collections::BTreeMap;
use units::Nanos;

/// Calls along one edge, per second.
#[derive(Clone, Debug, PartialEq)]
pub struct VizEdge {
    /// Empty for traffic from outside.
    pub source: String,
    pub source_region: String,
    pub destination: String,
    pub destination_region: String,
    pub normal: f64,
    pub warning: f64,
    pub danger: f64,
    /// Shown on hover: an open breaker, a fault.
    pub notices: Vec<String>,
}

const INTERNET: &str = "INTERNET";

#[derive(Default)]
struct Sums {
    normal: f64,
    warning: f64,
    danger: f64,
    notices: Vec<String>,
}

impl Sums {
    fn add(&mut self, edge: &VizEdge) {
        self.normal += edge.normal;
        self.warning += edge.warning;
        self.danger += edge.danger;
        for notice in &edge.notices {
            if !self.notices.contains(notice) {
                self.notices.push(notice.clone());
            }
        }
    }

    fn total(&self) -> f64 {
        self.normal + self.warning + self.danger
    }
}

type Level<'a> = BTreeMap<(&'a str, &'a str), Sums>;

/// The document for `now` (since the Unix epoch).
pub fn write(system: &str, edges: &[VizEdge], now: Nanos) -> Vec<u8> {
    let mut world: Level<'_> = BTreeMap::new();
    let mut regions: BTreeMap<&str, Level<'_>> = BTreeMap::new();
    for edge in edges {
        let outside = edge.source.is_empty();
        let source = if outside { INTERNET } else { &edge.source };
        let from = if outside { INTERNET } else { &edge.source_region };
        let to = edge.destination_region.as_str();
        if from != to {
            world.entry((from, to)).or_default().add(edge);
        }
        // What enters a region from elsewhere enters it from outside.
        let seen_from = if from == to { source } else { INTERNET };
        regions.entry(to).or_default().entry((seen_from, &edge.destination)).or_default().add(edge);
    }
    let mut json = Writer::new();
    json.object(|json| {
        json.key("renderer").text("global");
        json.key("name").text(system);
        json.key("entryNode").text(INTERNET);
        json.key("maxVolume").f64(volume(&world));
        json.key("serverUpdateTime").u64(now.0 / 1_000_000);
        json.key("nodes").array(|json| {
            json.object(|json| {
                json.key("renderer").text("region");
                json.key("name").text(INTERNET);
                json.key("class").text("normal");
            });
            for (region, level) in &regions {
                json.object(|json| {
                    json.key("renderer").text("region");
                    json.key("name").text(region);
                    json.key("class").text("normal");
                    json.key("entryNode").text(INTERNET);
                    json.key("maxVolume").f64(volume(level));
                    json.key("updated").u64(now.0 / 1_000_000);
                    json.key("nodes")
                        .array(|json| services(level).iter().for_each(|name| service(json, name)));
                    json.key("connections").array(|json| connections(json, level));
                });
            }
        });
        json.key("connections").array(|json| connections(json, &world));
    });
    json.into_bytes()
}

fn volume(level: &Level<'_>) -> f64 {
    // A quarter more than the sum keeps the busiest edge from filling the screen.
    level.values().map(Sums::total).fold(0.0, f64::max).max(1.0) * 1.25
}

fn services<'a>(level: &Level<'a>) -> Vec<&'a str> {
    let mut names: Vec<&str> = level.keys().flat_map(|(from, to)| [*from, *to]).collect();
    names.sort_unstable();
    names.dedup();
    names
}

fn service(json: &mut Writer, name: &str) {
    json.object(|json| {
        json.key("renderer").text("focusedChild");
        json.key("name").text(name);
        json.key("class").text("normal");
    });
}

fn connections(json: &mut Writer, level: &Level<'_>) {
    for ((source, target), sums) in level {
        json.object(|json| {
            json.key("source").text(source);
            json.key("target").text(target);
            json.key("metrics").object(|json| {
                json.key("normal").f64(sums.normal);
                json.key("warning").f64(sums.warning);
                json.key("danger").f64(sums.danger);
            });
            json.key("notices").array(|json| {
                for notice in &sums.notices {
                    json.object(|json| {
                        // It is drawn as HTML there: only text may pass.
                        json.key("title").text(&notice.replace(['<', '>', '&'], " "));
                        json.key("severity").u64(1);
                    });
                }
            });
            json.key("class").text(if sums.danger > 0.0 { "danger" } else { "normal" });
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn edge(source: &str, from: &str, destination: &str, to: &str, normal: f64, danger: f64) -> VizEdge {
        VizEdge {
            source: source.into(),
            source_region: from.into(),
            destination: destination.into(),
            destination_region: to.into(),
            normal,
            warning: 0.0,
            danger,
            notices: vec!["<b>breaker</b>".into()],
        }
    }

    #[test]
    fn regions_nest_and_rates_add_up() {
        let edges = [
            edge("", "", "web", "eu", 100.0, 1.0),
            edge("web", "eu", "cart", "eu", 60.0, 0.0),
            edge("web", "eu", "cart", "us", 7.0, 0.0),
            edge("web", "eu", "ads", "us", 3.0, 0.0),
        ];
        let all: Value = serde_json::from_slice(&write("shop", &edges, Nanos::from_secs(3))).unwrap();
        assert_eq!((&all["renderer"], &all["entryNode"]), (&"global".into(), &INTERNET.into()));
        let connection = |level: &Value, source: &str, target: &str| {
            let found = level["connections"]
                .as_array()
                .unwrap()
                .iter()
                .find(|it| it["source"] == source && it["target"] == target);
            found.map(|it| {
                (it["metrics"]["normal"].as_f64().unwrap(), it["metrics"]["danger"].as_f64().unwrap())
            })
        };
        assert_eq!(connection(&all, INTERNET, "eu"), Some((100.0, 1.0)));
        assert_eq!(connection(&all, "eu", "us"), Some((10.0, 0.0)));
        let region =
            |name: &str| all["nodes"].as_array().unwrap().iter().find(|it| it["name"] == name).unwrap();
        assert_eq!(connection(region("eu"), "web", "cart"), Some((60.0, 0.0)));
        assert_eq!(connection(region("us"), INTERNET, "ads"), Some((3.0, 0.0)));
        let nodes: Vec<_> =
            region("eu")["nodes"].as_array().unwrap().iter().map(|it| it["name"].as_str().unwrap()).collect();
        assert_eq!(nodes, [INTERNET, "cart", "web"]);
        assert!(!String::from_utf8(write("shop", &edges, Nanos::ZERO)).unwrap().contains("u003c"));
        assert!(serde_json::from_slice::<Value>(&write("", &[], Nanos::ZERO)).is_ok());
    }
}
