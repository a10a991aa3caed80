use super::*;
use model::system::Kind;
use policy::settings::{Discipline, Queue};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc as blocking;
use std::time::Duration;
use units::{Bytes, Dist, Nanos, Percent};

fn operation(name: &str, work: Nanos, response: u64, script: Vec<Step>) -> Operation {
    let writes = name.starts_with("POST");
    Operation {
        name: name.to_owned(),
        line: RequestLine::of(name, writes),
        work: Dist::Fixed(work).sampler().expect("fixed"),
        script,
        response: Bytes(response),
        errors: Percent::ZERO,
        writes,
    }
}

fn behaviour(service: &str, kind: Kind, operations: Vec<Operation>) -> Behaviour {
    Behaviour {
        service: service.to_owned(),
        kind,
        wire: Wire::Http1,
        concurrency: Some(1),
        queue: Queue { max: Some(1), discipline: Discipline::Fifo },
        work_factor: 1.0,
        burn: Percent::ZERO,
        operations,
        health_path: Some("/healthz".to_owned()),
        cache: None,
        consumers: Vec::new(),
        messages_max: 10,
    }
}

fn call(service: &str, operation: &str, wire: Wire) -> Call {
    Call {
        service: service.to_owned(),
        wire,
        lines: vec![(RequestLine::of(operation, false), Bytes(100))],
        optional: false,
        fallback: None,
        chance: Percent::WHOLE,
        times: 1,
        detached: false,
        version: None,
    }
}

struct Stage {
    host: Host,
    told: blocking::Receiver<(Key, Told)>,
    next: u64,
}

impl Stage {
    fn new() -> Self {
        let (sender, told) = blocking::channel();
        let host = Host::start(1, move |key, what| drop(sender.send((key, what)))).expect("a thread");
        Self { host, told, next: 0 }
    }

    fn begin(&mut self, behaviour: Behaviour, addresses: &[(&str, SocketAddr)]) -> (Key, SocketAddr) {
        self.next += 1;
        let key = Key(self.next);
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let identity = Identity {
            key,
            name: format!("{}#0", behaviour.service),
            version: "v1.0.0".to_owned(),
            place: "local/a".to_owned(),
        };
        let addresses = addresses.iter().map(|(name, address)| ((*name).to_owned(), *address)).collect();
        self.host.begin(Start { identity, behaviour: Arc::new(behaviour), listener, addresses });
        (key, address)
    }

    fn exit_of(&self, key: Key) -> Exit {
        loop {
            match self.told.recv_timeout(Duration::from_secs(20)).expect("it ends") {
                (of, Told::Exited(exit)) if of == key => return exit,
                _ => {}
            }
        }
    }
}

fn send(address: SocketAddr, line: &str, headers: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("it listens");
    let length = body.len();
    write!(
        stream,
        "{line} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    )
    .expect("it reads");
    stream
}

/// Status and body; status 0 when the connection ended without an answer.
fn receive(mut stream: TcpStream) -> (u16, String, String) {
    let mut text = String::new();
    let _ = stream.read_to_string(&mut text);
    let status = text.split(' ').nth(1).and_then(|it| it.parse().ok()).unwrap_or(0);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (status, head.to_owned(), body.to_owned())
}

fn ask(address: SocketAddr, line: &str) -> (u16, String) {
    let (status, _, body) = receive(send(address, line, "", ""));
    (status, body)
}

#[test]
fn an_instance_answers_as_the_file_says() {
    let mut stage = Stage::new();
    let (key, address) = stage.begin(
        behaviour("web", Kind::Http, vec![operation("GET /items/{id}", Nanos::ZERO, 100, vec![])]),
        &[],
    );
    let (status, body) = ask(address, "GET /items/7");
    assert_eq!((status, body.len()), (200, 100));
    assert!(body.starts_with("GET /items/{id} from web#0 v1.0.0 in local/a\n"), "{body}");
    assert_eq!(ask(address, "GET /healthz").0, 200);
    let (status, body) = ask(address, "GET /other");
    assert!(status == 404 && body.contains("its operations are GET /items/{id}"), "{status} {body}");
    stage.host.stop(key);
    assert_eq!(stage.exit_of(key), Exit::Code(0));
    assert!(TcpStream::connect(address).is_err(), "its port is free again");
}

#[test]
fn work_takes_real_time_and_a_full_queue_refuses() {
    let mut stage = Stage::new();
    let work = Nanos::from_millis(200);
    let (_, address) =
        stage.begin(behaviour("web", Kind::Http, vec![operation("GET /", work, 0, vec![])]), &[]);
    let started = timer::now();
    let requests: Vec<TcpStream> = (0..3).map(|_| send(address, "GET /", "", "")).collect();
    let mut statuses: Vec<u16> = requests.into_iter().map(|it| receive(it).0).collect();
    assert!(started.elapsed() >= Duration::from_millis(400), "one at a time");
    statuses.sort_unstable();
    assert_eq!(statuses, [200, 200, 503]);
}

#[test]
fn work_that_burns_takes_processor_time() {
    let cpu = || {
        let at = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
        Duration::new(at.tv_sec as u64, at.tv_nsec as u32)
    };
    let mut stage = Stage::new();
    let half = Percent::from_millionths(500_000);
    let work = vec![operation("GET /", Nanos::from_millis(400), 0, vec![])];
    let (_, address) = stage.begin(Behaviour { burn: half, ..behaviour("web", Kind::Http, work) }, &[]);
    let (started, before) = (timer::now(), cpu());
    assert_eq!(ask(address, "GET /").0, 200);
    // Half of it computes and half of it waits, one after the other.
    assert!(started.elapsed() >= Duration::from_millis(400));
    assert!(cpu() - before >= Duration::from_millis(200), "{:?}", cpu() - before);
}

#[test]
fn a_script_is_called_with_its_context_and_failures_travel() {
    let mut stage = Stage::new();
    let (_, ads) =
        stage.begin(behaviour("ads", Kind::Http, vec![operation("GET /ads", Nanos::ZERO, 10, vec![])]), &[]);
    let (wire, mut cart) = (Wire::Http2, behaviour("cart", Kind::Grpc, vec![]));
    cart.wire = wire;
    cart.operations = vec![operation("cart.Cart/Get", Nanos::ZERO, 50_000, vec![])];
    let (cart_key, cart) = stage.begin(cart, &[]);
    let script = vec![
        Step::All(vec![
            Step::Call(call("cart", "cart.Cart/Get", wire)),
            Step::Call(Call { optional: true, ..call("gone", "GET /", Wire::Http1) }),
        ]),
        Step::Call(call("ads", "GET /ads", Wire::Http1)),
    ];
    let web = behaviour("web", Kind::Http, vec![operation("GET /", Nanos::ZERO, 10, script)]);
    let (_, web) = stage.begin(web, &[("ads", ads), ("cart", cart)]);
    for _ in 0..3 {
        assert_eq!(ask(web, "GET /").0, 200);
    }
    stage.host.kill(cart_key);
    assert_eq!(stage.exit_of(cart_key), Exit::Signal(9));
    let (status, body) = ask(web, "GET /");
    assert!(status == 500 && body.contains("`cart` failed"), "{status} {body}");
}

#[test]
fn context_is_forwarded_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let callee = listener.local_addr().expect("bound");
    let mut stage = Stage::new();
    let script = vec![Step::Call(call("spy", "GET /x", Wire::Http1))];
    let web = behaviour("web", Kind::Http, vec![operation("GET /", Nanos::ZERO, 0, script)]);
    let (_, web) = stage.begin(web, &[("spy", callee)]);
    let headers = "X-Request-Id: r1\r\nTraceparent: 00-a-b-01\r\nx-b3-traceid: 7\r\ncookie: secret\r\n";
    let asked = send(web, "GET /", headers, "");
    let (mut spy, _) = listener.accept().expect("it calls");
    let mut seen = Vec::new();
    let mut byte = [0];
    while !seen.ends_with(b"\r\n\r\n") && spy.read(&mut byte).is_ok_and(|n| n == 1) {
        seen.push(byte[0]);
    }
    spy.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").expect("it reads");
    let seen = String::from_utf8(seen).expect("text").to_lowercase();
    assert!(seen.starts_with("get /x http/1.1") && seen.contains("host: spy"), "{seen}");
    for wanted in ["x-request-id: r1", "traceparent: 00-a-b-01", "x-b3-traceid: 7"] {
        assert!(seen.contains(wanted), "{wanted} in {seen}");
    }
    assert!(!seen.contains("cookie"), "{seen}");
    assert_eq!(receive(asked).0, 200);
}

#[test]
fn instances_are_troubled_alone() {
    let mut stage = Stage::new();
    let make = |name| behaviour(name, Kind::Http, vec![operation("GET /", Nanos::ZERO, 0, vec![])]);
    let (a, a_address) = stage.begin(make("a"), &[]);
    let (_, b_address) = stage.begin(make("b"), &[]);
    stage.host.trouble(a, Trouble { errors: Percent::WHOLE, ..Trouble::default() });
    assert_eq!((ask(a_address, "GET /").0, ask(b_address, "GET /").0), (500, 200));
    stage.host.trouble(a, Trouble { slow_by: Nanos::from_millis(100), ..Trouble::default() });
    let started = timer::now();
    assert_eq!(ask(a_address, "GET /").0, 200);
    assert!(started.elapsed() >= Duration::from_millis(100));
    stage.host.trouble(a, Trouble { paused: true, ..Trouble::default() });
    let waiting = send(a_address, "GET /", "", "");
    assert_eq!(ask(b_address, "GET /").0, 200);
    stage.host.trouble(a, Trouble::default());
    assert_eq!(receive(waiting).0, 200);
}

#[test]
fn a_kill_ends_answers_in_the_middle_and_a_stop_lets_them_finish() {
    for (kill, status) in [(true, 0), (false, 200)] {
        let mut stage = Stage::new();
        let web = behaviour("web", Kind::Http, vec![operation("GET /", Nanos::from_millis(300), 10, vec![])]);
        let (key, address) = stage.begin(web, &[]);
        let (ads, waiting) = (address, send(address, "GET /", "", ""));
        // A second request is refused or queued only once the first is inside.
        assert_eq!(ask(ads, "GET /healthz").0, 200);
        if kill {
            stage.host.kill(key)
        } else {
            stage.host.stop(key)
        }
        assert_eq!(receive(waiting).0, status);
        assert_eq!(stage.exit_of(key), if kill { Exit::Signal(9) } else { Exit::Code(0) });
    }
}

#[test]
fn stores_remember_and_queues_deliver() {
    let mut stage = Stage::new();
    let operations = || {
        vec![operation("PUT /{key}", Nanos::ZERO, 0, vec![]), operation("GET /{key}", Nanos::ZERO, 5, vec![])]
    };
    let mut store = behaviour("store", Kind::Store, operations());
    store.operations[0].writes = true;
    let (_, store) = stage.begin(store, &[]);
    assert_eq!(receive(send(store, "PUT /a", "", "remember me")).0, 200);
    assert_eq!(ask(store, "GET /a"), (200, "remember me".to_owned()));
    assert_eq!(ask(store, "GET /b").1.len(), 5);

    let mut target = behaviour("billing", Kind::Store, operations());
    target.operations = vec![operation("GET /bill", Nanos::ZERO, 0, vec![])];
    let (billing_key, billing) = stage.begin(target, &[]);
    let mut topic = behaviour("topic", Kind::Queue, vec![operation("POST /publish", Nanos::ZERO, 0, vec![])]);
    topic.consumers = vec![call("billing", "GET /bill", Wire::Http1)];
    topic.messages_max = 3;
    let (_, topic) = stage.begin(topic, &[("billing", billing)]);
    for _ in 0..2 {
        assert_eq!(receive(send(topic, "POST /publish", "", "")).0, 200);
    }
    stage.host.stop(billing_key);
    // It says how much it was asked as it goes, and it goes when what was on its way has been answered.
    loop {
        let (key, told) = stage.told.recv_timeout(Duration::from_secs(20)).expect("it says so");
        if key == billing_key && matches!(told, Told::Line(line) if line.starts_with("ended after")) {
            break;
        }
    }
    let refused = (0..5).filter(|_| receive(send(topic, "POST /publish", "", "")).0 == 503).count();
    assert!(refused >= 2, "nobody takes messages, and three fit: {refused}");
}
