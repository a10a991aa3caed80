"""A gRPC server and a client of other people's making. `serve` prints its port; `ask ADDRESS` prints a line for each check."""
import concurrent.futures
import sys
import threading
import time

import grpc

LARGE = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
seen, cancelled = {}, threading.Event()


def echo(request, context):
    context.send_initial_metadata((("x-initial", dict(context.invocation_metadata()).get("x-asked", "-")),))
    context.set_trailing_metadata((("x-trailing", "t"), ("bin-bin", b"\x00\xff")))
    return request


def deadline(_, context):
    return str(context.time_remaining()).encode()


def slow(request, context):
    context.add_callback(cancelled.set)
    time.sleep(3)
    return request


def fails(request, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not now: \u00e4 %")


def unavailable_twice(request, context):
    seen[request] = seen.get(request, 0) + 1
    if seen[request] <= 2:
        context.abort(grpc.StatusCode.UNAVAILABLE, "later")
    return str(seen[request]).encode()


def was_cancelled(request, context):
    return b"yes" if cancelled.wait(5) else b"no"


def count_to(request, context):
    for n in range(int(request)):
        yield str(n).encode()


def total(requests, context):
    return str(sum(len(it) for it in requests)).encode()


def ping_pong(requests, context):
    for it in requests:
        yield b"pong " + it


def serve():
    unary = {it.__name__: grpc.unary_unary_rpc_method_handler(it) for it in
             (echo, deadline, slow, fails, unavailable_twice, was_cancelled)}
    streams = {
        "count_to": grpc.unary_stream_rpc_method_handler(count_to),
        "total": grpc.stream_unary_rpc_method_handler(total),
        "ping_pong": grpc.stream_stream_rpc_method_handler(ping_pong),
    }
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(32), options=LARGE)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("t.T", {**unary, **streams}),))
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    print(port, flush=True)
    # Ends with whoever started it.
    sys.stdin.read()


def check(name, found, wanted):
    print(("ok" if found == wanted else "WRONG") + f" {name} {found!r}"[:200], flush=True)


def status_of(call):
    try:
        return "OK", call()
    except grpc.RpcError as error:
        return error.code().name, error


def ask(address, dead):
    channel = grpc.insecure_channel(address, options=LARGE)
    method = lambda name: channel.unary_unary("/t.T/" + name)
    check("unary", method("echo")(b"hello", timeout=10), b"hello")
    reply, call = method("echo").with_call(b"", timeout=10, metadata=(("x-asked", "a"),))
    check("metadata", (reply, dict(call.initial_metadata()).get("x-initial"), dict(call.trailing_metadata()).get("x-trailing"),
                       dict(call.trailing_metadata()).get("bin-bin")), (b"", "a", "t", b"\x00\xff"))
    large = bytes(range(256)) * (8 << 12)
    check("large", method("echo")(large, timeout=20) == large, True)
    check("server stream", [int(it) for it in channel.unary_stream("/t.T/count_to")(b"200", timeout=10)], list(range(200)))
    check("client stream", channel.stream_unary("/t.T/total")(iter([b"abc"] * 300), timeout=10), b"900")
    answers = channel.stream_stream("/t.T/ping_pong")((str(n).encode() for n in range(100)), timeout=10)
    check("both ways", [it for it in answers], [b"pong %d" % n for n in range(100)])
    left = float(method("deadline")(b"", timeout=5))
    # Its own rounding may add a little.
    check("deadline is passed on", 0 < left <= 5.1 or left, True)
    began = time.time()
    check("deadline", status_of(lambda: method("slow")(b"", timeout=0.3))[0], "DEADLINE_EXCEEDED")
    check("deadline in time", time.time() - began < 2, True)
    check("cancelled at the server", method("was_cancelled")(b"", timeout=10), b"yes")
    future = method("slow").future(b"", timeout=10)
    future.cancel()
    check("cancel", future.cancelled(), True)
    code, error = status_of(lambda: method("fails")(b"", timeout=10))
    check("status and message", (code, error.details()), ("FAILED_PRECONDITION", "not now: \u00e4 %"))
    check("retried on the status", method("unavailable_twice")(b"key", timeout=10), b"3")
    check("no such method", status_of(lambda: method("absent")(b"", timeout=10))[0], "UNIMPLEMENTED")
    code, error = status_of(lambda: grpc.insecure_channel(dead).unary_unary("/t.T/echo")(b"", timeout=10))
    check("own errors are gRPC's", (code, dict(error.trailing_metadata() or ()).get("x-isobar-error")),
          ("UNAVAILABLE", "connect-failed edge->api"))
    many = [method("echo").future(b"%d" % n, timeout=20) for n in range(500)]
    check("500 at once", [it.result() for it in many] == [b"%d" % n for n in range(500)], True)


if sys.argv[1] == "serve":
    serve()
else:
    ask(sys.argv[2], sys.argv[3])
