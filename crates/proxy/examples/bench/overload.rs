//! What is left of an instance when three times as much is asked of it as it can do, and nothing was configured.

use crate::peers::peer;
use crate::process::{LOAD_CORE, Paths, pinned, start};
use crate::{BACK_OVERLOAD, FRONT, Fallible};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The instance that the overload case asks too much of: ten at a time, ten milliseconds each, and it works on for
/// callers who have left.
pub(crate) fn upstream() -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", BACK_OVERLOAD)).await?;
        let slots = Arc::new(tokio::sync::Semaphore::new(10));
        loop {
            let (stream, _) = listener.accept().await?;
            let slots = slots.clone();
            tokio::spawn(async move {
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let (mut read, write) = stream.into_split();
                let write = Arc::new(tokio::sync::Mutex::new(write));
                let mut buffer = vec![0; 4096];
                // One request per read: the proxy does not pipeline.
                while let Ok(count) = read.read(&mut buffer).await {
                    if count == 0 {
                        return;
                    }
                    let (slots, write) = (slots.clone(), write.clone());
                    tokio::spawn(async move {
                        let _slot = slots.acquire_owned().await;
                        tokio::time::sleep(Duration::from_millis(10)).await;
                        let _ = write
                            .lock()
                            .await
                            .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
                            .await;
                    });
                }
            });
        }
    })
}

/// Open loop: so many requests a second whatever happens, each given up after a second. Prints how many were answered
/// with 200 in time, per second, in the second half of the run.
pub(crate) fn load(rate: u64, seconds: u64) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let good = runtime.block_on(async {
        use std::sync::atomic::{AtomicU64, Ordering};
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let good = Arc::new(AtomicU64::new(0));
        let idle = Arc::new(std::sync::Mutex::new(Vec::<tokio::net::TcpStream>::new()));
        let began = Instant::now();
        let half = Duration::from_secs(seconds) / 2;
        let mut tick = tokio::time::interval(Duration::from_millis(5));
        let mut sent = 0;
        while began.elapsed() < Duration::from_secs(seconds) {
            tick.tick().await;
            let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
            for _ in sent..due {
                let (good, idle) = (good.clone(), idle.clone());
                tokio::spawn(async move {
                    let counted = began.elapsed() >= half;
                    let call = async {
                        let kept = idle.lock().ok()?.pop();
                        let mut stream = match kept {
                            Some(stream) => stream,
                            None => tokio::net::TcpStream::connect(("127.0.0.1", FRONT)).await.ok()?,
                        };
                        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.ok()?;
                        let mut buffer = [0; 4096];
                        let read = stream.read(&mut buffer).await.ok().filter(|read| *read > 0)?;
                        idle.lock().ok()?.push(stream);
                        buffer[..read].starts_with(b"HTTP/1.1 200").then_some(())
                    };
                    let answered =
                        matches!(tokio::time::timeout(Duration::from_secs(1), call).await, Ok(Some(())));
                    if answered && counted {
                        good.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            sent = due;
        }
        good.load(Ordering::Relaxed) as f64 / half.as_secs_f64()
    });
    println!("{good}");
    Ok(())
}

/// What the instance can do when it is asked for no more: twenty callers, each with one request at a time, straight to it.
/// Timers round up, so this is what the goodput is compared with and not what ten slots of ten milliseconds promise.
pub(crate) fn capacity(seconds: u64) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    let done = runtime.block_on(async {
        let callers: Vec<_> = (0..20)
            .map(|_| {
                tokio::spawn(async move {
                    use tokio::io::{AsyncReadExt, AsyncWriteExt};
                    let mut done = 0u64;
                    let Ok(mut stream) = tokio::net::TcpStream::connect(("127.0.0.1", BACK_OVERLOAD)).await
                    else {
                        return 0;
                    };
                    let began = Instant::now();
                    let mut buffer = [0; 4096];
                    while began.elapsed() < Duration::from_secs(seconds) {
                        if stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.is_err() {
                            break;
                        }
                        match stream.read(&mut buffer).await {
                            Ok(read) if read > 0 => done += 1,
                            _ => break,
                        }
                    }
                    done
                })
            })
            .collect();
        let mut sum = 0;
        for caller in callers {
            sum += caller.await.unwrap_or(0);
        }
        sum
    });
    println!("{}", done as f64 / seconds as f64);
    Ok(())
}

/// Goodput under three times the capacity, as a share of it.
pub(crate) fn goodput(paths: &Paths, mode: &str, seconds: u64) -> Fallible<f64> {
    let this = paths.this.display().to_string();
    let mut upstream = pinned(LOAD_CORE, &this);
    upstream.arg("overload-upstream");
    let _upstream = start(upstream, BACK_OVERLOAD)?;
    let output = pinned(LOAD_CORE, &this).args(["overload-capacity", "3"]).output()?;
    let capacity: f64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    let command = peer("isobar", mode, paths).ok_or("ourselves")?;
    let _proxy = start(command, FRONT)?;
    let output = pinned(LOAD_CORE, &this).args(["overload-load", "3000", &seconds.to_string()]).output()?;
    let good: f64 = String::from_utf8_lossy(&output.stdout).trim().parse()?;
    Ok(good / capacity)
}
