//! Prints a large valid file: `cargo run -p model --example generate -- 10000 100000 > large.yaml`.
#![allow(clippy::print_stdout, reason = "the file is the answer")]

fn main() {
    let mut numbers = std::env::args().skip(1).map(|it| it.parse().expect("a number"));
    let services = numbers.next().unwrap_or(1_000);
    let calls = numbers.next().unwrap_or(services * 10);
    print!("{}", model::generate::system(services, calls));
}
