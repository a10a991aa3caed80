//! `places` and `network`: where things can stand, and what lies between.

use super::Resolver;
use super::fields::shorten;
use super::suggest::misspelt;
use crate::diagnostic::Diagnostic;
use crate::span::{At, Span};
use crate::system::{Dns, LinkOverride, LinkSettings, Place, Region, Secured};
use crate::text::{Entry, Node};
use std::collections::HashMap;
use units::{Bytes, Money, Nanos};

impl<'n> Resolver<'n, '_> {
    pub(super) fn places(&mut self, entries: &[&'n Entry]) {
        let mut first: HashMap<&str, Span> = HashMap::new();
        for entry in entries {
            self.check_name(&entry.key, entry.key_span, "region");
            if let Some(span) = first.insert(&entry.key, entry.key_span) {
                self.defined_twice("region", entry, span);
                continue;
            }
            let name = At::new(entry.key.to_string(), entry.key_span);
            let zones = self.zones(&entry.value, entry.key_span);
            self.system.regions.push(Region { name, zones });
        }
        if self.system.regions.is_empty() {
            let nowhere = |text: &str| At::new(text.to_owned(), Span::default());
            self.system.regions.push(Region { name: nowhere("local"), zones: vec![nowhere("a")] });
        }
    }

    fn zones(&mut self, node: &'n Node, at: Span) -> Vec<At<String>> {
        let mut zones: Vec<At<String>> = Vec::new();
        if let Some(mut f) = self.fields(node, "a region") {
            if let Some(list) = f.get("zones") {
                let items = self.list(list, "the zones' names");
                if items.is_empty() && list.as_seq().is_some() {
                    self.impossible(list.span, "a region has at least one zone", "no zones");
                }
                for item in items {
                    let Some(name) = self.name(item, "a zone's name") else { continue };
                    match zones.iter().find(|it| it.value == name.value) {
                        Some(first) => {
                            let first = first.span;
                            self.report(
                                Diagnostic::error(
                                    "E0207",
                                    name.span,
                                    format!("the zone `{}` is listed twice", *name),
                                )
                                .label("again here")
                                .related(first, "first here"),
                            );
                        }
                        None => zones.push(name.map(str::to_owned)),
                    }
                }
                if zones.is_empty() {
                    // Its names could not be read: a zone named elsewhere may well be one of them.
                    self.names.places_hole = true;
                }
            } else {
                self.names.places_hole |= node.as_map().is_some_and(|map| map.hole || misspelt(map, "zones"));
            }
            f.finish(self);
        } else {
            self.names.places_hole = true;
        }
        if zones.is_empty() {
            zones.push(At::new("a".to_owned(), at));
        }
        zones
    }

    pub(super) fn network(&mut self, entries: &[&'n Entry]) {
        let mut seen: HashMap<(Place, Place), Span> = HashMap::new();
        let mut general: HashMap<&str, Span> = HashMap::new();
        for entry in entries {
            let key = &*entry.key;
            if matches!(key, "in-zone" | "between-zones" | "between-regions" | "internet" | "dns" | "tls")
                && let Some(first) = general.insert(key, entry.key_span)
            {
                self.defined_twice("link", entry, first);
                continue;
            }
            match key {
                "in-zone" => self.system.network.in_zone = self.link(&entry.value),
                "between-zones" => self.system.network.between_zones = self.link(&entry.value),
                "between-regions" => self.system.network.between_regions = self.link(&entry.value),
                "internet" => self.internet(&entry.value),
                "dns" => self.dns(&entry.value),
                "tls" => self.secured(&entry.value),
                _ => {
                    let settings = self.link(&entry.value);
                    let Some((from, to, both_ways)) = self.pair(key, entry.key_span) else { continue };
                    let mut ways = vec![(from, to)];
                    if both_ways {
                        ways.push((to, from));
                    }
                    for (from, to) in ways {
                        let span = entry.span();
                        if let Some(first) = seen.insert((from, to), entry.key_span) {
                            self.defined_twice("link", entry, first);
                            break;
                        }
                        self.system.network.pairs.push(LinkOverride { from, to, settings, span });
                    }
                }
            }
        }
        // Most specific first; the file's order among equals.
        let zones = |place: Place| usize::from(matches!(place, Place::Zone(_)));
        self.system.network.pairs.sort_by_key(|it| 2 - zones(it.from) - zones(it.to));
    }

    /// `A <-> B` or `A -> B`.
    pub(super) fn pair(&mut self, text: &str, span: Span) -> Option<(Place, Place, bool)> {
        let split = text.split_once("<->").map(|(a, b)| (a, b, true));
        let split = split.or_else(|| text.split_once("->").map(|(a, b)| (a, b, false)));
        let Some((from, to, both_ways)) = split else {
            self.report(
                Diagnostic::error("E0505", span, format!("`{}` names no link", shorten(text)))
                    .label("not a link")
                    .help("a link is `in-zone`, `between-zones`, `between-regions`, `internet` (and there are `dns` and `tls`), `A <-> B` or `A -> B`, where A and B are places"),
            );
            return None;
        };
        let from = self.place_named(from.trim(), span);
        let to = self.place_named(to.trim(), span);
        let (from, to) = (from?, to?);
        if from == to {
            self.report(
                Diagnostic::error("E0505", span, "a link joins two different places")
                    .label("both are the same")
                    .help("within one zone it is `in-zone`"),
            );
            return None;
        }
        Some((from, to, both_ways))
    }

    fn internet(&mut self, node: &'n Node) {
        let Some(mut f) = self.fields(node, "the internet link") else { return };
        let price = f.get("price").and_then(|node| self.quantity::<Money>(node));
        self.system.network.internet_price_per_gb = price.map(|it| it.value);
        self.system.network.internet = LinkSettings {
            rtt: f.get("rtt").and_then(|node| self.quantity::<Nanos>(node)).map(|it| it.value),
            jitter: f.get("jitter").and_then(|node| self.share(node, "jitter")).map(|it| it.value),
            loss: f.get("loss").and_then(|node| self.share(node, "loss")).map(|it| it.value),
            bytes_per_second: f.get("bandwidth").and_then(|node| self.bandwidth(node)),
            price_per_gb: None,
        };
        f.finish(self);
    }

    fn dns(&mut self, node: &'n Node) {
        let Some(mut f) = self.fields(node, "the resolver of names") else { return };
        let built_in = Dns::default();
        let ttl = f.get("ttl").and_then(|node| self.positive::<Nanos>(node, "`ttl`"));
        let latency = f.get("latency").and_then(|node| self.quantity::<Nanos>(node));
        let failures = f.get("failures").and_then(|node| self.share(node, "failures"));
        self.system.network.dns = Some(Dns {
            ttl: ttl.map_or(built_in.ttl, |it| it.value),
            latency: latency.map_or(built_in.latency, |it| it.value),
            failures: failures.map_or(built_in.failures, |it| it.value),
        });
        f.finish(self);
    }

    fn secured(&mut self, node: &'n Node) {
        let Some(mut f) = self.fields(node, "what securing a connection costs") else { return };
        let handshake = f.get("handshake").and_then(|node| self.quantity::<Nanos>(node));
        self.system.network.tls =
            Some(handshake.map_or(Secured::default(), |it| Secured { handshake: it.value }));
        f.finish(self);
    }

    fn link(&mut self, node: &'n Node) -> LinkSettings {
        let Some(mut f) = self.fields(node, "a link") else { return LinkSettings::default() };
        let settings = LinkSettings {
            rtt: f.get("rtt").and_then(|node| self.quantity::<Nanos>(node)).map(|it| it.value),
            jitter: f.get("jitter").and_then(|node| self.share(node, "jitter")).map(|it| it.value),
            loss: f.get("loss").and_then(|node| self.share(node, "loss")).map(|it| it.value),
            bytes_per_second: f.get("bandwidth").and_then(|node| self.bandwidth(node)),
            price_per_gb: f.get("price").and_then(|node| self.quantity::<Money>(node)).map(|it| it.value),
        };
        f.finish(self);
        settings
    }

    fn bandwidth(&mut self, node: &'n Node) -> Option<Bytes> {
        let text = self.text(node, "a bandwidth")?;
        let Some(size) = text.value.trim().strip_suffix("/s") else {
            self.report(
                Diagnostic::error(
                    "E0204",
                    text.span,
                    format!("`{}` is not a bandwidth: a size a second", shorten(text.value)),
                )
                .label("`/s` is missing")
                .help("write for example `125MB/s`"),
            );
            return None;
        };
        let size = self.quantity_at::<Bytes>(size, text.span)?;
        if size.value == Bytes::ZERO {
            self.impossible(text.span, "a bandwidth cannot be zero", "zero");
            return None;
        }
        Some(size.value)
    }
}
