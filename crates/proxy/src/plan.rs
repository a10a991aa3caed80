//! A snapshot made ready to run: names resolved to slots, patterns compiled, statistics attached.
//!
//! The planner lives on the control side and remembers the last plan. What did not change is carried over by `Arc`, so
//! that workers see at a glance what they may keep; slots of edges and services are stable for as long as their names
//! exist. Routers are persistent: changing a route of five thousand copies a few nodes.

use crate::config::{self, Action, Config, Listener, Route, ValueMatch};
use crate::quota::{Quota, RouteRate};
use crate::router::{Condition, Entry, Router, Source};
use crate::stats::{EdgeCells, PerWorker, RouteCells, VersionCells};
use crate::tls::{ClientSide, ServerSide};
use hashbrown::HashMap;
use regex::bytes::Regex;
use smallvec::SmallVec;
use std::sync::Arc;
use units::Nanos;

/// Room for 255 routes between any two of a file that was loaded at once.
const ORDER_GAP_BITS: u32 = 8;

pub(crate) type Names<V> = HashMap<String, V, foldhash::fast::FixedState>;

/// What the workers run.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) config: Arc<Config>,
    pub(crate) generation: u64,
    pub(crate) applied_at: Nanos,
    pub(crate) listeners: Vec<Arc<ListenerPlan>>,
    /// By slot; a gap is a slot whose edge is gone.
    pub(crate) edges: Vec<Option<Arc<EdgePlan>>>,
    pub(crate) services: Vec<Option<Arc<ServicePlan>>>,
}

#[derive(Debug)]
pub(crate) struct ListenerPlan {
    pub(crate) config: Arc<Listener>,
    pub(crate) router: Router<RoutePlan>,
    routes: Vec<(Arc<Route>, Arc<Entry<RoutePlan>>)>,
    /// For listeners that are no HTTP: the edge of everything that comes in.
    pub(crate) tcp_edge: Option<u32>,
    pub(crate) by_name: Vec<(String, u32)>,
    pub(crate) tls: Option<ServerSide>,
}

impl ListenerPlan {
    pub(crate) fn routes(&self) -> impl Iterator<Item = &RoutePlan> {
        self.routes.iter().map(|(_, entry)| &entry.item)
    }
}

#[derive(Debug)]
pub(crate) struct RoutePlan {
    pub(crate) route: Arc<Route>,
    pub(crate) targets: SmallVec<[TargetPlan; 1]>,
    pub(crate) weight_total: u32,
    pub(crate) mirror_edge: Option<u32>,
    pub(crate) path_regex: Option<Regex>,
    pub(crate) fault_only: Vec<Condition>,
    pub(crate) has_fault: bool,
    pub(crate) edits_request: bool,
    pub(crate) edits_response: bool,
    pub(crate) cells: Arc<PerWorker<RouteCells>>,
    pub(crate) rate: Option<Arc<RouteRate>>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TargetPlan {
    pub(crate) edge: u32,
    pub(crate) weight: u32,
    pub(crate) version: Option<String>,
}

#[derive(Debug)]
pub(crate) struct EdgePlan {
    pub(crate) config: Arc<config::Edge>,
    pub(crate) slot: u32,
    pub(crate) service: u32,
    pub(crate) cells: Arc<PerWorker<EdgeCells>>,
    pub(crate) quota: Option<Arc<Quota>>,
}

#[derive(Debug)]
pub(crate) struct ServicePlan {
    pub(crate) config: Arc<config::Service>,
    pub(crate) tls: Option<ClientSide>,
    /// Every version an endpoint has, in order of their names; instances carry the index.
    pub(crate) versions: Vec<String>,
}

/// What was read for the parts that encrypt, by their names.
#[derive(Debug, Default)]
pub(crate) struct Tls {
    pub(crate) listeners: Names<ServerSide>,
    pub(crate) services: Names<ClientSide>,
}

/// Which slots and listeners a worker must look at again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) edges: Vec<u32>,
    pub(crate) services: Vec<u32>,
}

/// Makes plans out of snapshots, each from the one before.
#[derive(Debug)]
pub(crate) struct Planner {
    workers: usize,
    generation: u64,
    edge_slots: Names<u32>,
    service_slots: Names<u32>,
    last: Option<Arc<Plan>>,
}

impl Planner {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            generation: 0,
            edge_slots: Names::default(),
            service_slots: Names::default(),
            last: None,
        }
    }

    /// Plans a snapshot that has passed [`Config::check`].
    pub(crate) fn plan(&mut self, config: Config, mut tls: Tls, now: Nanos) -> (Arc<Plan>, Changes) {
        let last = self.last.take();
        let mut changes = Changes::default();
        self.generation += 1;
        let services = self.services(&config, &mut tls, last.as_deref(), &mut changes);
        let edges = self.edges(&config, &services, last.as_deref(), &mut changes);
        let listeners = config
            .listeners
            .iter()
            .map(|listener| self.listener(listener, &mut tls, last.as_deref()))
            .collect();
        let plan = Arc::new(Plan {
            config: Arc::new(config),
            generation: self.generation,
            applied_at: now,
            listeners,
            edges,
            services,
        });
        self.last = Some(plan.clone());
        (plan, changes)
    }

    fn services(
        &mut self,
        config: &Config,
        tls: &mut Tls,
        last: Option<&Plan>,
        changes: &mut Changes,
    ) -> Vec<Option<Arc<ServicePlan>>> {
        let names: Vec<&str> = config.services.iter().map(|service| service.name.as_str()).collect();
        assign(&mut self.service_slots, &names);
        let mut slots = vec![None; slots_len(&self.service_slots)];
        for service in &config.services {
            let slot = self.service_slots[&service.name];
            let before = last.and_then(|last| last.services.get(slot as usize)?.as_ref());
            let plan = match before.filter(|plan| same(&plan.config, service)) {
                Some(plan) => plan.clone(),
                None => {
                    changes.services.push(slot);
                    let mut versions: Vec<String> =
                        service.endpoints.iter().map(|endpoint| endpoint.version.clone()).collect();
                    versions.sort();
                    versions.dedup();
                    Arc::new(ServicePlan {
                        config: service.clone(),
                        tls: tls.services.remove(&service.name),
                        versions,
                    })
                }
            };
            slots[slot as usize] = Some(plan);
        }
        note_gone(last.map(|last| last.services.as_slice()), &slots, &mut changes.services);
        slots
    }

    fn edges(
        &mut self,
        config: &Config,
        services: &[Option<Arc<ServicePlan>>],
        last: Option<&Plan>,
        changes: &mut Changes,
    ) -> Vec<Option<Arc<EdgePlan>>> {
        let names: Vec<&str> = config.edges.iter().map(|edge| edge.name.as_str()).collect();
        assign(&mut self.edge_slots, &names);
        let mut slots = vec![None; slots_len(&self.edge_slots)];
        for edge in &config.edges {
            let slot = self.edge_slots[&edge.name];
            let service = self.service_slots[&edge.service];
            let before = last.and_then(|last| last.edges.get(slot as usize)?.as_ref());
            let same_service = |last: &Plan| {
                let at = service as usize;
                matches!((last.services.get(at), services.get(at)), (Some(Some(a)), Some(Some(b))) if Arc::ptr_eq(a, b))
            };
            let keep = before.filter(|plan| {
                same(&plan.config, edge) && plan.service == service && last.is_some_and(same_service)
            });
            let plan = match keep {
                Some(plan) => plan.clone(),
                None => {
                    changes.edges.push(slot);
                    let versions =
                        services[service as usize].as_ref().map_or(0, |service| service.versions.len());
                    let cells = before
                        .map(|plan| plan.cells.clone())
                        .filter(|cells| cells.of(0).versions.len() == versions)
                        .unwrap_or_else(|| {
                            Arc::new(PerWorker::new(self.workers, || EdgeCells {
                                versions: (0..versions).map(|_| VersionCells::default()).collect(),
                                ..EdgeCells::default()
                            }))
                        });
                    let quota = before
                        .filter(|plan| Quota::still_fits(&plan.config.settings, &edge.settings))
                        .map_or_else(|| Quota::new(&edge.settings), |plan| plan.quota.clone());
                    Arc::new(EdgePlan { config: edge.clone(), slot, service, cells, quota })
                }
            };
            slots[slot as usize] = Some(plan);
        }
        note_gone(last.map(|last| last.edges.as_slice()), &slots, &mut changes.edges);
        slots
    }

    fn listener(&self, listener: &Arc<Listener>, tls: &mut Tls, last: Option<&Plan>) -> Arc<ListenerPlan> {
        let before =
            last.and_then(|last| last.listeners.iter().find(|before| before.config.name == listener.name));
        if let Some(before) = before
            && Arc::ptr_eq(&before.config, listener)
            && before.routes().all(|plan| plan.targets == self.targets(&plan.route))
        {
            return before.clone();
        }
        let fresh = before.is_none();
        let router_before = before.map(|before| before.router.clone());
        let mut router = router_before.unwrap_or_default();
        let before_routes = before.map_or(&[][..], |before| &before.routes);
        // Most routes are the very same in the very same place. Only the others are looked up by name.
        let in_place = |at: usize| {
            before_routes
                .get(at)
                .filter(|(route, _)| listener.routes.get(at).is_some_and(|new| Arc::ptr_eq(new, route)))
        };
        let mut old = HashMap::<
            &str,
            SmallVec<[&(Arc<Route>, Arc<Entry<RoutePlan>>); 1]>,
            foldhash::fast::FixedState,
        >::default();
        for (at, filed) in before_routes.iter().enumerate().rev() {
            if in_place(at).is_none() {
                old.entry(&filed.0.name).or_default().push(filed);
            }
        }
        let mut routes: Vec<(Arc<Route>, Arc<Entry<RoutePlan>>)> = Vec::with_capacity(listener.routes.len());
        let mut filed_last = None;
        for (position, route) in listener.routes.iter().enumerate() {
            let before = in_place(position).or_else(|| old.get_mut(route.name.as_str())?.pop());
            if let Some((before_route, entry)) = before
                && same(before_route, route)
                && filed_last < Some(entry.order)
                && entry.item.targets == self.targets(route)
            {
                filed_last = Some(entry.order);
                routes.push((before_route.clone(), entry.clone()));
                continue;
            }
            let cells = before.map(|(_, entry)| entry.item.cells.clone());
            let rate = before
                .filter(|(before, _)| before.rate_limit == route.rate_limit)
                .map_or_else(|| route.rate_limit.map(RouteRate::new), |(_, entry)| entry.item.rate.clone());
            if let Some((before_route, entry)) = before {
                router.remove(&before_route.matches, entry);
            }
            // Gaps leave room for routes written between others later; where one is used up, what follows is filed anew.
            let order = match filed_last {
                _ if fresh => (position as u32) << ORDER_GAP_BITS,
                Some(last) => last + 1,
                None => 0,
            };
            filed_last = Some(order);
            let plan = self.route(route, cells, rate);
            if let Some(entry) = Entry::new(order, &route.matches, plan) {
                router.insert(&route.matches, &entry);
                routes.push((route.clone(), entry));
            }
        }
        for (route, entry) in old.values().flatten() {
            router.remove(&route.matches, entry);
        }
        let edge = |name: &str| self.edge_slots.get(name).copied();
        let (tcp_edge, by_name) = match &listener.kind {
            config::ListenerKind::Http => (None, Vec::new()),
            config::ListenerKind::Tcp { edge: name } => (edge(name), Vec::new()),
            config::ListenerKind::TlsPassthrough { by_name, fallback } => (
                fallback.as_deref().and_then(edge),
                by_name
                    .iter()
                    .filter_map(|(host, name)| Some((host.to_ascii_lowercase(), edge(name)?)))
                    .collect(),
            ),
        };
        // The files behind unchanged settings are watched, so what was made of them goes on, tickets and all.
        let new_tls = tls.listeners.remove(&listener.name);
        let kept_tls =
            before.filter(|before| before.config.tls == listener.tls).and_then(|before| before.tls.clone());
        Arc::new(ListenerPlan {
            config: listener.clone(),
            router,
            routes,
            tcp_edge,
            by_name,
            tls: kept_tls.or(new_tls),
        })
    }

    fn targets(&self, route: &Route) -> SmallVec<[TargetPlan; 1]> {
        let Action::Forward(targets) = &route.action else { return SmallVec::new() };
        targets
            .iter()
            .filter_map(|target| {
                Some(TargetPlan {
                    edge: *self.edge_slots.get(&target.edge)?,
                    weight: target.weight,
                    version: target.version.clone(),
                })
            })
            .collect()
    }

    fn route(
        &self,
        route: &Arc<Route>,
        cells: Option<Arc<PerWorker<RouteCells>>>,
        rate: Option<Arc<RouteRate>>,
    ) -> RoutePlan {
        let targets = self.targets(route);
        let path_regex = match &route.rewrite.path {
            Some(config::PathEdit::Regex { pattern, .. }) => Regex::new(pattern).ok(),
            _ => None,
        };
        let edits = |edit: &config::HeaderEdit| {
            !(edit.set.is_empty() && edit.add.is_empty() && edit.remove.is_empty())
        };
        let fault = &route.fault;
        RoutePlan {
            weight_total: targets.iter().map(|target| target.weight).sum(),
            targets,
            mirror_edge: route.mirror.as_ref().and_then(|mirror| self.edge_slots.get(&mirror.edge).copied()),
            path_regex,
            fault_only: conditions(&fault.only),
            has_fault: fault.delay.is_some()
                || fault.abort.is_some()
                || fault.bandwidth.is_some()
                || fault.from_headers.is_some(),
            edits_request: edits(&route.rewrite.request),
            edits_response: edits(&route.rewrite.response),
            cells: cells.unwrap_or_else(|| Arc::new(PerWorker::new(self.workers, RouteCells::default))),
            rate,
            route: route.clone(),
        }
    }
}

fn conditions(values: &[ValueMatch]) -> Vec<Condition> {
    values.iter().filter_map(|value| Condition::new(Source::Header, value)).collect()
}

/// The same part, or an equal one: a control plane that compiles everything anew must not restart everything.
fn same<T: PartialEq>(a: &Arc<T>, b: &Arc<T>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

fn slots_len(slots: &Names<u32>) -> usize {
    slots.values().max().map_or(0, |last| *last as usize + 1)
}

/// Keeps the slots of names that stay, frees those of names that went, and gives new names the lowest free ones.
fn assign(slots: &mut Names<u32>, names: &[&str]) {
    let wanted: hashbrown::HashSet<&str, foldhash::fast::FixedState> = names.iter().copied().collect();
    slots.retain(|name, _| wanted.contains(name.as_str()));
    let taken: hashbrown::HashSet<u32, foldhash::fast::FixedState> = slots.values().copied().collect();
    let mut free = (0u32..).filter(|slot| !taken.contains(slot));
    for name in names {
        if !slots.contains_key(*name)
            && let Some(slot) = free.next()
        {
            slots.insert((*name).to_owned(), slot);
        }
    }
}

fn note_gone<T>(last: Option<&[Option<Arc<T>>]>, now: &[Option<Arc<T>>], changes: &mut Vec<u32>) {
    for (slot, before) in last.unwrap_or_default().iter().enumerate() {
        if before.is_some() && now.get(slot).is_none_or(Option::is_none) {
            changes.push(slot as u32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Edge, PathMatch, Service};
    use crate::http1::{HeadLimits, RequestHead, parse_request};

    fn config(paths: &[&str]) -> Config {
        let routes = paths.iter().map(|path| Route::forward(path, PathMatch::Prefix((*path).into()), "a->b"));
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
        Config {
            services: vec![Arc::new(Service::http1("b", &[]))],
            edges: vec![Arc::new(Edge::new("a", "b", policy::settings::EdgeSettings::default()))],
            listeners: vec![Arc::new(Listener::http("a", address, routes.collect()))],
            ..Config::default()
        }
    }

    fn found(plan: &Plan, path: &str) -> Option<String> {
        let text = format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n");
        let mut head = RequestHead::default();
        parse_request(text.as_bytes(), &HeadLimits::default(), &mut head).expect("a good head");
        Some(plan.listeners[0].router.find(&head, text.as_bytes())?.item.route.name.clone())
    }

    /// However a plan came about, it routes as one made from nothing does.
    #[test]
    fn every_way_to_a_configuration_leads_to_the_same_routes() {
        let steps: &[&[&str]] = &[
            &["/", "/a", "/b"],
            &["/", "/b"],
            &["/b", "/", "/c"],
            &["/c", "/b", "/", "/a"],
            &["/a", "/a", "/c"],
            &["/c", "/a"],
            &[],
            &["/", "/a", "/b"],
        ];
        let mut planner = Planner::new(1);
        for step in steps {
            let (plan, _) = planner.plan(config(step), Tls::default(), Nanos(1));
            let (fresh, _) = Planner::new(1).plan(config(step), Tls::default(), Nanos(1));
            for path in ["/", "/a/x", "/b", "/c", "/d"] {
                assert_eq!(found(&plan, path), found(&fresh, path), "{path} after {step:?}");
            }
            assert_eq!(plan.listeners[0].routes().count(), step.len());
        }
    }

    #[test]
    fn what_is_equal_keeps_its_slot_and_its_cells() {
        let mut planner = Planner::new(1);
        let (first, changes) = planner.plan(config(&["/"]), Tls::default(), Nanos(1));
        assert_eq!((changes.edges.len(), changes.services.len()), (1, 1));
        let (second, changes) = planner.plan(config(&["/", "/new"]), Tls::default(), Nanos(2));
        assert_eq!(changes, Changes::default(), "an equal edge is the same edge");
        let cells = |plan: &Plan| Arc::as_ptr(&plan.edges[0].as_ref().expect("an edge").cells);
        assert_eq!(cells(&first), cells(&second));
    }
}
