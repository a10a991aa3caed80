use super::*;
use proptest::prelude::*;

/// `db; web needs db:healthy; seed job needs db:healthy; cart x2 build`
fn parse_wanted(text: &str) -> Vec<Wanted> {
    text.split(';').map(str::trim).filter(|it| !it.is_empty()).map(parse_service).collect()
}

fn parse_service(text: &str) -> Wanted {
    let mut words = text.split_whitespace();
    let mut wanted = Wanted {
        name: words.next().expect("a name").to_owned(),
        instances: 1,
        job: false,
        build: false,
        needs: Vec::new(),
        checked: true,
        healthy_after: 1,
        unhealthy_after: 3,
        startup: Nanos::from_secs(60),
        stop_timeout: Nanos::from_secs(10),
        drain: Nanos::from_millis(100),
        exclusive: false,
        fingerprint: 1,
    };
    while let Some(word) = words.next() {
        match word {
            "job" => wanted.job = true,
            "build" => wanted.build = true,
            "unchecked" => wanted.checked = false,
            "exclusive" => wanted.exclusive = true,
            "needs" => {
                let (service, until) = words.next().and_then(|it| it.split_once(':')).expect("service:until");
                let until = match until {
                    "started" => Until::Started,
                    "healthy" => Until::Healthy,
                    _ => Until::Completed,
                };
                wanted.needs.push(Need { service: service.to_owned(), until, why: "needs".to_owned() });
            }
            _ if word.starts_with('x') => wanted.instances = word[1..].parse().expect("a count"),
            _ if word.starts_with('v') => wanted.fingerprint = word[1..].parse().expect("a fingerprint"),
            _ => panic!("no word {word}"),
        }
    }
    wanted
}

struct World {
    supervisor: Supervisor,
    now: Nanos,
    trace: Vec<String>,
}

impl World {
    fn new() -> Self {
        Self { supervisor: Supervisor::new(), now: Nanos::ZERO, trace: Vec::new() }
    }

    /// The newest life of `web#0`, or the one before it with `web#0'` (the one being replaced).
    fn key(&self, name: &str) -> Key {
        let (name, older) = (name.trim_end_matches('\''), name.ends_with('\''));
        let (service, index) = name.split_once('#').expect("service#index");
        let index: u32 = index.parse().expect("an index");
        let mut keys: Vec<Key> = self
            .supervisor
            .instances()
            .filter(|(of, it)| *of == service && it.index == index)
            .map(|(_, it)| it.key)
            .collect();
        keys.sort();
        let at = if older { 0 } else { keys.len().saturating_sub(1) };
        *keys.get(at).unwrap_or_else(|| panic!("no instance {name}"))
    }

    fn name(&self, key: Key) -> String {
        self.supervisor
            .find(key)
            .map_or_else(|| format!("{key:?}"), |(name, it)| format!("{name}#{}", it.index))
    }

    fn pump(&mut self) {
        while let Some(action) = self.supervisor.next_action() {
            let line = match action {
                Action::Build(name) => format!("build {name}"),
                Action::Start { service, index, .. } => format!("start {service}#{index}"),
                Action::Admit(key) => format!("admit {}", self.name(key)),
                Action::Retire(key) => format!("retire {}", self.name(key)),
                Action::Terminate(key) => format!("term {}", self.name(key)),
                Action::Kill(key) => format!("kill {}", self.name(key)),
                Action::Tell(Notice::Waiting { instance, on }) => {
                    let on: Vec<String> = on.iter().map(ToString::to_string).collect();
                    format!("{instance} waits for {}", on.join(", "))
                }
                Action::Tell(Notice::GaveUp { instance, detail, attempts, .. }) => {
                    format!("gave up {instance} after {attempts}: {detail}")
                }
                Action::Tell(Notice::BuildFailed { service, detail, kept }) => {
                    format!("build of {service} failed: {detail} (kept: {kept})")
                }
                Action::Tell(Notice::Completed { job }) => format!("completed {job}"),
                Action::Tell(Notice::Crashed { instance, detail, pause, .. }) => {
                    format!("{instance} crashed: {detail}, again in {pause}")
                }
                // These repeat what the actions beside them say.
                Action::Tell(_) => continue,
                Action::Finished => "finished".to_owned(),
            };
            self.trace.push(line);
        }
    }

    fn advance(&mut self, to: Nanos) {
        while let Some(wake) = self.supervisor.next_wake().filter(|it| *it <= to) {
            self.now = wake.max(self.now);
            self.supervisor.tick(self.now);
            self.pump();
        }
        self.now = to;
        self.supervisor.tick(to);
        self.pump();
    }

    fn step(&mut self, line: &str) {
        let mut words = line.split_whitespace();
        let (Some(at), Some(verb)) = (words.next(), words.next()) else {
            panic!("a time and a verb: {line}")
        };
        let at: Nanos = at.parse().expect("a time");
        let rest: Vec<&str> = words.collect();
        self.advance(at);
        let name = rest.first().map_or_else(String::new, |it| (*it).to_owned());
        let event = match verb {
            "want" => {
                self.supervisor.want(at, parse_wanted(&rest.join(" ").replace(" / ", ";")));
                self.pump();
                return;
            }
            "scale" => {
                assert!(self.supervisor.scale(at, &name, rest[1].parse().expect("a count")));
                self.pump();
                return;
            }
            "wait" => return,
            "halt" | "let-go" | "renew" => {
                let (service, index) = name.split_once('#').expect("service#index");
                let index = index.parse().expect("an index");
                match verb {
                    "halt" => self.supervisor.halt(at, service, index),
                    "let-go" => self.supervisor.let_go(at, service, index),
                    _ => self.supervisor.replace_one(at, service, index),
                }
                self.pump();
                return;
            }
            "up" => {
                let key = self.key(&name);
                self.supervisor.on(at, Event::Started(key));
                Event::Health(key, Ok(()))
            }
            "started" => Event::Started(self.key(&name)),
            "ok" => Event::Health(self.key(&name), Ok(())),
            "fail" => Event::Health(self.key(&name), Err("503".to_owned())),
            "exit" => Event::Exited(self.key(&name), Exit::Code(rest[1].parse().expect("a code"))),
            "missing" => Event::StartFailed(self.key(&name), "not found".to_owned()),
            "built" => Event::Built(name, Ok(())),
            "unbuilt" => Event::Built(name, Err("E0308".to_owned())),
            "restart" => Event::Restart(name),
            "stop" => Event::Stop(name),
            "start" => Event::Start(name),
            "replace" => Event::Replace(name),
            "shutdown" => Event::Shutdown,
            "now" => Event::ShutdownNow,
            _ => panic!("no verb {verb}"),
        };
        self.supervisor.on(at, event);
        self.pump();
    }
}

/// Plays the script and compares all that was done; lines of `expected` are separated by `;` or newlines.
#[track_caller]
fn check(wanted: &str, script: &str, expected: &str) {
    let mut world = World::new();
    world.supervisor.want(Nanos::ZERO, parse_wanted(wanted));
    world.pump();
    let lines = |text: &str| -> Vec<String> {
        text.split([';', '\n']).map(|it| it.trim().to_owned()).filter(|it| !it.is_empty()).collect()
    };
    for line in lines(script) {
        world.step(&line);
    }
    assert_eq!(world.trace.join("\n"), lines(expected).join("\n"));
}

#[test]
fn a_service_starts_once_what_it_needs_is_healthy_and_says_what_it_waits_for() {
    check(
        "db; web needs db:healthy",
        "1ms started db#0; 5ms ok db#0; 6ms up web#0",
        "start db#0; web#0 waits for db to be healthy (needs, it is starting); admit db#0; start web#0; admit web#0",
    );
}

#[test]
fn nobody_waits_for_what_is_scaled_to_nobody() {
    check("db x0; web needs db:healthy", "1ms up web#0", "start web#0; admit web#0");
}

#[test]
fn started_is_less_than_healthy() {
    check(
        "db; web needs db:started",
        "1ms started db#0",
        "start db#0; web#0 waits for db to be started (needs, it is starting); start web#0",
    );
}

#[test]
fn a_job_that_ends_well_lets_others_start_and_is_not_started_again() {
    check(
        "seed job unchecked; web needs seed:completed",
        "1ms started seed#0; 5ms exit seed#0 0; 1h wait",
        "start seed#0; web#0 waits for seed to be completed (needs, it is starting); completed seed; start web#0
         term web#0; kill web#0",
    );
}

#[test]
fn a_job_that_fails_is_tried_again_and_given_up() {
    check(
        "seed job; web needs seed:completed",
        "1ms started seed#0; 1s exit seed#0 1; 2s exit seed#0 1; 3s exit seed#0 1; 5s exit seed#0 1; 9s exit seed#0 1",
        "start seed#0; web#0 waits for seed to be completed (needs, it is starting)
         seed#0 crashed: exit status 1, again in 250ms; start seed#0
         seed#0 crashed: exit status 1, again in 500ms; start seed#0
         seed#0 crashed: exit status 1, again in 1s; start seed#0
         seed#0 crashed: exit status 1, again in 2s; start seed#0
         gave up seed#0 after 5: exit status 1",
    );
}

#[test]
fn what_is_given_up_is_the_end_for_whoever_waits_for_it_and_nobody_else() {
    #[track_caller]
    fn check(wanted: &str, script: &str, expected: bool) {
        let mut world = World::new();
        world.supervisor.want(Nanos::ZERO, parse_wanted(wanted));
        world.pump();
        script.split(';').map(str::trim).for_each(|line| world.step(line));
        assert_eq!(world.supervisor.is_at_its_end(), expected, "{wanted}: {script}");
    }
    let wanted = "bad; web; late needs bad:healthy";
    let lost = "0ms missing bad#0; 1s missing bad#0; 2s missing bad#0; 4s missing bad#0; 9s missing bad#0";
    check(wanted, "1ms up web#0", false);
    check(wanted, "0ms up web#0; 0ms missing bad#0; 1s missing bad#0", false);
    check(wanted, lost, false);
    check(wanted, &format!("{lost}; 10s up web#0"), true);
    check("bad; web build", lost, false);
    check("bad", "1ms up bad#0", false);
}

#[test]
fn a_crash_after_a_stable_time_begins_a_new_series() {
    check(
        "web",
        "0ms up web#0; 5s exit web#0 1; 6s up web#0; 20s exit web#0 1",
        "start web#0; admit web#0
         retire web#0; web#0 crashed: exit status 1, again in 250ms; start web#0; admit web#0
         retire web#0; web#0 crashed: exit status 1, again in 250ms",
    );
}

#[test]
fn a_command_that_does_not_exist_is_given_up_like_any_crash() {
    check(
        "web",
        "0ms missing web#0; 1s missing web#0; 2s missing web#0; 4s missing web#0; 9s missing web#0; 1h wait",
        "start web#0
         web#0 crashed: not found, again in 250ms; start web#0
         web#0 crashed: not found, again in 500ms; start web#0
         web#0 crashed: not found, again in 1s; start web#0
         web#0 crashed: not found, again in 2s; start web#0
         gave up web#0 after 5: not found",
    );
}

#[test]
fn what_is_halted_ends_without_a_word_and_stays_away_until_it_is_let_go() {
    check(
        "web x2",
        "1ms up web#0; 1ms up web#1; 1s halt web#0; 2s exit web#0 137; 1h wait; 1h let-go web#0; 1h up web#0",
        "start web#0; start web#1; admit web#0; admit web#1
         kill web#0
         start web#0; admit web#0",
    );
    // Let go before it is gone; a restart by hand meanwhile does not bring it back.
    check(
        "web",
        "1ms up web#0; 1s halt web#0; 2s let-go web#0; 3s exit web#0 137",
        "start web#0; admit web#0; kill web#0; start web#0",
    );
    check(
        "web",
        "1ms up web#0; 1s halt web#0; 2s exit web#0 137; 3s start web#0; 4s wait",
        "start web#0; admit web#0; kill web#0",
    );
}

#[test]
fn one_instance_is_replaced_and_its_like_are_not() {
    check(
        "web x2",
        "1ms up web#0; 1ms up web#1; 1s renew web#1; 2s up web#1; 3s exit web#1' 0",
        "start web#0; start web#1; admit web#0; admit web#1
         start web#1; admit web#1; retire web#1; term web#1",
    );
}

#[test]
fn a_start_that_takes_too_long_is_a_crash() {
    check(
        "web",
        "1ms started web#0; 61s exit web#0 143; 62s wait",
        "start web#0; term web#0; web#0 crashed: not ready within 1min, again in 250ms; start web#0",
    );
}

#[test]
fn three_failed_checks_take_an_instance_out_and_a_good_one_brings_it_back() {
    check(
        "web",
        "0ms up web#0; 1s fail web#0; 2s fail web#0; 3s ok web#0; 4s fail web#0; 5s fail web#0; 6s fail web#0; 7s ok web#0",
        "start web#0; admit web#0; retire web#0; admit web#0",
    );
}

#[test]
fn an_instance_that_stays_unhealthy_is_replaced() {
    check(
        "web",
        "0ms up web#0; 1s fail web#0; 2s fail web#0; 3s fail web#0; 63s exit web#0 143",
        "start web#0; admit web#0; retire web#0; term web#0
         web#0 crashed: unhealthy for 1min: 503, again in 250ms",
    );
}

#[test]
fn a_hang_at_stop_meets_the_hard_signal() {
    check(
        "web",
        "0ms up web#0; 1s stop web; 20s exit web#0 137; 1h wait; 2h start web",
        "start web#0; admit web#0; retire web#0; term web#0; kill web#0; start web#0",
    );
}

#[test]
fn a_replacement_takes_traffic_before_the_old_one_goes() {
    check(
        "web x2",
        "0ms up web#0; 0ms up web#1; 1s replace web; 2s up web#0; 3s exit web#0' 0; 4s up web#1; 5s exit web#1' 0; 6s wait",
        "start web#0; start web#1; admit web#0; admit web#1
         start web#0; admit web#0; retire web#0; start web#1; term web#0
         admit web#1; retire web#1; term web#1",
    );
}

#[test]
fn a_replacement_that_fails_leaves_the_old_one_at_work() {
    check(
        "web",
        "0ms up web#0; 1s replace web; 2s exit web#0 1; 3s exit web#0 1; 4s exit web#0 1; 5s exit web#0 1; 9s exit web#0 1",
        "start web#0; admit web#0; start web#0
         web#0 crashed: exit status 1, again in 250ms; start web#0
         web#0 crashed: exit status 1, again in 500ms; start web#0
         web#0 crashed: exit status 1, again in 1s; start web#0
         web#0 crashed: exit status 1, again in 2s; start web#0
         gave up web#0 after 5: exit status 1",
    );
}

#[test]
fn a_service_with_a_port_of_its_own_is_stopped_before_its_successor_starts() {
    check(
        "web exclusive",
        "0ms up web#0; 1s restart web; 2s exit web#0 0; 3s up web#0",
        "start web#0; admit web#0; retire web#0; term web#0; start web#0; admit web#0",
    );
}

#[test]
fn a_build_comes_first_and_a_broken_one_keeps_what_runs() {
    check(
        "web build",
        "1s built web; 2s up web#0; 3s replace web; 4s unbuilt web; 5s replace web; 6s built web; 7s up web#0",
        "build web; web#0 waits for its build, which is under way
         start web#0; admit web#0; build web; build of web failed: E0308 (kept: true)
         build web; start web#0; admit web#0; retire web#0",
    );
}

#[test]
fn a_changed_fingerprint_replaces_and_an_unchanged_one_does_not() {
    check(
        "web v1; cart v1",
        "0ms up web#0; 0ms up cart#0; 1s want web v2 / cart v1",
        "start cart#0; start web#0; admit web#0; admit cart#0; start web#0",
    );
}

#[test]
fn scaling_adds_the_next_numbers_and_takes_the_highest() {
    check(
        "web x2",
        "0ms up web#0; 0ms up web#1; 1s scale web 3; 2s up web#2; 3s scale web 1; 4s exit web#1 0; 4s exit web#2 0",
        "start web#0; start web#1; admit web#0; admit web#1; start web#2; admit web#2
         retire web#1; retire web#2; term web#1; term web#2",
    );
}

#[test]
fn a_service_gone_from_the_file_stops() {
    check(
        "web; cart",
        "0ms up web#0; 0ms up cart#0; 1s want web; 2s exit cart#0 0; 3s want web / cart",
        "start cart#0; start web#0; admit web#0; admit cart#0; retire cart#0; term cart#0; start cart#0",
    );
}

#[test]
fn dependents_stop_before_what_they_need() {
    check(
        "db; web needs db:healthy",
        "0ms up db#0; 1ms up web#0; 1s shutdown; 2s exit web#0 0; 3s exit db#0 0",
        "start db#0; web#0 waits for db to be healthy (needs, it is starting); admit db#0; start web#0; admit web#0
         retire web#0; term web#0; retire db#0; term db#0; finished",
    );
}

#[test]
fn an_impatient_shutdown_kills_at_once() {
    check(
        "db; web needs db:healthy",
        "0ms up db#0; 1ms up web#0; 1s shutdown; 1s now; 2s exit web#0 137; 2s exit db#0 137",
        "start db#0; web#0 waits for db to be healthy (needs, it is starting); admit db#0; start web#0; admit web#0
         retire web#0; term web#0; kill db#0; kill web#0; finished",
    );
}

#[test]
fn a_circle_of_needs_still_shuts_down() {
    let mut world = World::new();
    world.supervisor.want(Nanos::ZERO, parse_wanted("a; b needs a:healthy"));
    world.step("0ms up a#0");
    world.step("0ms up b#0");
    world.supervisor.want(Nanos(1), parse_wanted("a needs b:healthy; b needs a:healthy"));
    world.step("1s shutdown");
    world.step("2s exit a#0 0");
    world.step("2s exit b#0 0");
    assert_eq!(world.trace.last().map(String::as_str), Some("finished"));
}

#[test]
fn a_late_report_of_an_earlier_life_changes_nothing() {
    let mut world = World::new();
    world.supervisor.want(Nanos::ZERO, parse_wanted("web"));
    world.step("0ms up web#0");
    let old = world.key("web#0");
    world.step("1s exit web#0 1");
    world.step("2s up web#0");
    let before = world.trace.len();
    for event in [Event::Exited(old, Exit::Code(1)), Event::Health(old, Err("x".into())), Event::Started(old)]
    {
        world.supervisor.on(Nanos::from_secs(3), event);
    }
    world.pump();
    assert_eq!(world.trace.len(), before, "{:?}", world.trace);
}

fn random_line() -> impl Strategy<Value = (u64, String)> {
    let service = prop_oneof!["a", "b", "c"];
    let verb = prop_oneof![
        Just("up"),
        Just("started"),
        Just("ok"),
        Just("fail"),
        Just("exit"),
        Just("missing"),
        Just("built"),
        Just("unbuilt"),
        Just("restart"),
        Just("stop"),
        Just("start"),
        Just("replace"),
        Just("scale"),
        Just("wait")
    ];
    (0u64..20_000, verb, service, 0u32..3).prop_map(|(ms, verb, service, n)| {
        let subject = match verb {
            "up" | "started" | "ok" | "fail" | "exit" | "missing" => format!("{service}#{n}"),
            _ => service,
        };
        (ms, format!("{verb} {subject} {n}"))
    })
}

proptest! {
    /// Whatever happens: no slot ever has two lives except while one replaces the other, every process that was
    /// started is told to stop by a shutdown, and a shutdown ends once the processes do.
    #[test]
    fn nothing_is_left_behind(lines in proptest::collection::vec(random_line(), 0..60)) {
        let mut world = World::new();
        world.supervisor.want(Nanos::ZERO, parse_wanted("a x2; b build needs a:healthy; c job needs b:started"));
        world.pump();
        let mut at = 0;
        for (ms, line) in lines {
            at += ms;
            let subject = line.split_whitespace().nth(1).unwrap_or("").to_owned();
            let exists = !subject.contains('#')
                || world.supervisor.instances().any(|(name, it)| format!("{name}#{}", it.index) == subject && it.phase.is_live());
            world.advance(Nanos::from_millis(at));
            if exists && world.supervisor.instances().any(|(name, it)| format!("{name}#{}", it.index) == subject) || !subject.contains('#') {
                world.step(&format!("{at}ms {line}"));
            }
            for (name, index) in [("a", 0), ("a", 1), ("a", 2), ("b", 0), ("c", 0)] {
                let lives: Vec<&Instance> = world.supervisor.instances()
                    .filter(|(of, it)| *of == name && it.index == index && it.phase.is_live()).map(|(_, it)| it).collect();
                let leaving = lives.iter().filter(|it| !it.may_retire()).count();
                let coming = lives.iter().filter(|it| it.replaces.is_some()).count();
                prop_assert!(lives.len() <= 1 + leaving + coming, "{name}#{index}: {lives:?}");
            }
        }
        let end = at + 1;
        world.step(&format!("{end}ms shutdown"));
        for round in 0..20u64 {
            let live: Vec<Key> = world.supervisor.instances().filter(|(_, it)| it.phase.is_live()).map(|(_, it)| it.key).collect();
            for key in live {
                let (_, it) = world.supervisor.find(key).expect("it is live");
                if matches!(it.phase, Phase::Stopping { .. }) {
                    world.supervisor.on(Nanos::from_millis(end + round), Event::Exited(key, Exit::Signal(15)));
                    world.pump();
                }
            }
            world.advance(Nanos::from_millis(end + round + 1));
        }
        prop_assert_eq!(world.trace.last().map(String::as_str), Some("finished"));
    }
}
