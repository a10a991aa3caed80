//! `traffic`: what the world asks, and how often.

use super::Resolver;
use super::fields::{Fields, shorten};
use super::grammar::{METHODS, who_and_quoted};
use super::service::PRIORITIES;
use crate::diagnostic::Diagnostic;
use crate::span::{At, Span};
use crate::system::{Arrivals, Caller, GatewayId, Load, Shape, Traffic};
use crate::text::{Entry, Node};
use policy::settings::Priority;
use units::{Dist, Nanos, Rate};

impl<'n> Resolver<'n, '_> {
    pub(super) fn all_traffic(&mut self) {
        for entry in self.names.traffic.entries.clone() {
            // An id must not shift when a definition before it is wrong, so a placeholder stands for it.
            let traffic = self.traffic(entry).unwrap_or_else(|| Traffic {
                name: At::new(entry.key.to_string(), entry.key_span),
                to: At::new(Caller::Gateway(GatewayId::new(0)), entry.key_span),
                request: None,
                load: Load::Closed { users: At::new(1, entry.key_span), think: Dist::Fixed(Nanos::ZERO) },
                from: None,
                priority: Priority::Critical,
                span: entry.span(),
            });
            self.system.traffic.push(traffic);
        }
    }

    fn traffic(&mut self, entry: &'n Entry) -> Option<Traffic> {
        let mut f = self.fields(&entry.value, "traffic")?;
        f.span = entry.key_span;
        let to = f.require(self, "to", "web \"GET /\"").and_then(|it| self.asked(it));
        let load = self.load(&mut f);
        let from = f.get("from").and_then(|it| {
            let text = self.text(it, "a region")?;
            self.region_named(text.value, text.span)
        });
        let priority = f.get("priority").and_then(|it| self.choice(it, "a priority", &PRIORITIES));
        f.finish(self);
        let (to, request) = to?;
        Some(Traffic {
            name: At::new(entry.key.to_string(), entry.key_span),
            to,
            request,
            load: load?,
            from,
            priority: priority.map_or(Priority::Critical, |it| it.value),
            span: entry.span(),
        })
    }

    /// `WHO` or `WHO "REQUEST"`.
    fn asked(&mut self, node: &'n Node) -> Option<(At<Caller>, Option<At<String>>)> {
        let text = self.text(node, "whom it asks: `web \"GET /\"`")?;
        let Some((who, request)) = who_and_quoted(text.value) else {
            self.report(
                Diagnostic::error(
                    "E0503",
                    text.span,
                    format!("`{}` says not whom to ask", shorten(text.value)),
                )
                .label("not understood")
                .help("write a service or a gateway and what is asked: `web \"GET /\"`"),
            );
            return None;
        };
        let to = self.caller(who, text.span)?;
        let request = match (to, request) {
            (Caller::Service(service), Some(name)) => {
                self.operation_of(service, name, text.span)?;
                Some(At::new(name.to_owned(), text.span))
            }
            (Caller::Service(service), None) => {
                let operation = self.the_operation(At::new(service, text.span), None)?;
                let inside = &self.names.inside[service.index()].operations;
                operation.map(|it| At::new(inside[it.value.index()].to_owned(), text.span))
            }
            (Caller::Gateway(_), Some(line)) => {
                self.request_line(line, text.span)?;
                Some(At::new(line.to_owned(), text.span))
            }
            (Caller::Gateway(_), None) => {
                self.report(
                    Diagnostic::error("E0509", text.span, format!("what does it ask of `{}`?", shorten(who)))
                        .label("a gateway needs a request line")
                        .help(format!("write for example `{} \"GET /\"`", shorten(who))),
                );
                return None;
            }
        };
        Some((At::new(to, text.span), request))
    }

    fn request_line(&mut self, line: &str, span: Span) -> Option<()> {
        let good = line.split_once(' ').is_some_and(|(method, path)| {
            METHODS.contains(&method) && path.starts_with('/') && !path.contains(char::is_whitespace)
        });
        if !good {
            self.report(
                Diagnostic::error("E0503", span, format!("`{}` is not a request", shorten(line)))
                    .label("not a request")
                    .help("a gateway is asked with a method and a path: `edge \"GET /\"`"),
            );
        }
        good.then_some(())
    }

    fn load(&mut self, f: &mut Fields<'n>) -> Option<Load> {
        let kind = f.exactly_one(self, &["rate", "users", "arrivals_file"])?;
        let arrivals_words = [("poisson", Arrivals::Poisson), ("constant", Arrivals::Constant)];
        let arrivals =
            f.get("arrivals").and_then(|it| self.choice(it, "a kind of arrivals", &arrivals_words));
        let shape_node = f.get("shape");
        let shape = shape_node.map(|it| self.shape(it));
        let think = f.get("think").and_then(|it| self.dist(it));
        for (key, goes_with) in [("arrivals", "rate"), ("shape", "rate"), ("think", "users")] {
            if let Some(entry) = f.entry(key)
                && &*kind.key != goes_with
            {
                self.report(
                    Diagnostic::error("E0211", entry.key_span, format!("`{key}` goes with `{goes_with}`"))
                        .label(format!("not with `{}`", kind.key))
                        .related(kind.key_span, format!("this traffic is given by `{}`", kind.key)),
                );
            }
        }
        match &*kind.key {
            "rate" => {
                let rate = self.quantity::<Rate>(&kind.value)?;
                if rate.value.is_zero() && shape_node.is_none() {
                    self.impossible(kind.value.span, "traffic of no requests is none", "zero");
                }
                let arrivals = arrivals.map_or(Arrivals::default(), |it| it.value);
                Some(Load::Open { rate, shape: shape.flatten().unwrap_or_default(), arrivals })
            }
            "users" => {
                let users = self.count(&kind.value, "the number of users", 1..=100_000_000)?;
                Some(Load::Closed { users, think: think.unwrap_or(Dist::Fixed(Nanos::ZERO)) })
            }
            _ => Some(Load::Recorded { file: self.owned(&kind.value, "a file")? }),
        }
    }

    fn shape(&mut self, node: &'n Node) -> Option<Shape> {
        let mut f = self.fields(node, "a shape")?;
        let entry = f.exactly_one(self, &["ramp", "diurnal", "burst"]);
        let shape = entry.and_then(|entry| {
            let mut s = self.fields(&entry.value, "a shape")?;
            let shape = match &*entry.key {
                "ramp" => {
                    let to = s.require(self, "to", "500/s").and_then(|it| self.quantity::<Rate>(it));
                    let over =
                        s.require(self, "over", "5min").and_then(|it| self.positive::<Nanos>(it, "`over`"));
                    to.zip(over).map(|(to, over)| Shape::Ramp { to: to.value, over: over.value })
                }
                "diurnal" => {
                    let peak = s.require(self, "peak", "400/s").and_then(|it| self.quantity::<Rate>(it));
                    let period = s.get("period").map(|it| self.positive::<Nanos>(it, "`period`"));
                    let day = Nanos::from_secs(86_400);
                    let period = period.map_or(Some(day), |it| it.map(|it| it.value));
                    peak.zip(period).map(|(peak, period)| Shape::Diurnal { peak: peak.value, period })
                }
                _ => {
                    let to = s.require(self, "to", "100/s").and_then(|it| self.quantity::<Rate>(it));
                    let lasting = s
                        .require(self, "lasting", "5s")
                        .and_then(|it| self.positive::<Nanos>(it, "`lasting`"));
                    let every_node = s.require(self, "every", "1min");
                    let every = every_node.and_then(|it| self.positive::<Nanos>(it, "`every`"));
                    if let (Some(lasting), Some(every)) = (lasting, every)
                        && lasting.value >= every.value
                    {
                        let message =
                            format!("a burst of {} every {} never ends", lasting.value, every.value);
                        self.impossible(lasting.span, message, "not shorter than `every`");
                    }
                    to.zip(lasting).zip(every).map(|((to, lasting), every)| Shape::Burst {
                        to: to.value,
                        lasting: lasting.value,
                        every: every.value,
                    })
                }
            };
            s.finish(self);
            shape
        });
        f.finish(self);
        shape
    }
}
