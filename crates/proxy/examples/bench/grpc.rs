//! A back end that answers as gRPC does: a head, messages, and the status in a trailer.

use crate::Fallible;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};

/// Messages of a streamed answer.
const MESSAGES: usize = 50;

pub(crate) fn upstream(port: u16) -> Fallible<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", port)).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            let _ = stream.set_nodelay(true);
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                builder.max_concurrent_streams(1_000).initial_connection_window_size(4 << 20);
                let Ok(mut connection) = builder.handshake::<_, Bytes>(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    tokio::spawn(answer(request, respond));
                }
            });
        }
    })
}

async fn answer(request: Request<h2::RecvStream>, mut respond: h2::server::SendResponse<Bytes>) {
    let messages = if request.uri().path() == "/stream" { MESSAGES } else { 1 };
    let mut body = request.into_body();
    while let Some(Ok(data)) = body.data().await {
        let _ = body.flow_control().release_capacity(data.len());
    }
    let mut response = Response::new(());
    response.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc"));
    let Ok(mut stream) = respond.send_response(response, false) else { return };
    for _ in 0..messages {
        if stream.send_data(Bytes::from_static(&[0; 105]), false).is_err() {
            return;
        }
    }
    let mut status = HeaderMap::new();
    status.insert("grpc-status", HeaderValue::from_static("0"));
    let _ = stream.send_trailers(status);
}
