"""gRPC with messages of plain bytes: grpc_peers.py serve FOLDER [CERTIFICATE] | chat HOST:PORT clear|tls."""

import os, queue, sys
from concurrent import futures

import grpc

SECRET = b"token ghp_0123456789abcdefghijABCDEFGHIJ01234567"
NAME = "e2e.Echo"


def with_trailer(context):
    context.set_trailing_metadata((("x-sum", "7"),))


def keep(what):
    """What arrived is kept in `seen`."""
    with open(os.path.join(sys.argv[2], "seen"), "ab") as file:
        file.write(what)


class Keeper(grpc.ServerInterceptor):
    def intercept_service(self, continuation, details):
        keep(f"{details.method} {details.invocation_metadata}\n".encode())
        return continuation(details)


def unary(message, context):
    keep(message)
    with_trailer(context)
    return message


def up(messages, context):
    return str(sum(1 for _ in messages)).encode()


def down(message, context):
    for number in range(int(message)):
        yield b"message %d" % number
    with_trailer(context)


def both(messages, context):
    yield from messages


def fails(message, context):
    context.abort(grpc.StatusCode.NOT_FOUND, "no such thing")


def serve(folder, certificate=None):
    server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=(Keeper(),))
    handlers = {
        "Unary": grpc.unary_unary_rpc_method_handler(unary),
        "Up": grpc.stream_unary_rpc_method_handler(up),
        "Down": grpc.unary_stream_rpc_method_handler(down),
        "Both": grpc.stream_stream_rpc_method_handler(both),
        "Fails": grpc.unary_unary_rpc_method_handler(fails),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(NAME, handlers),))
    if certificate:
        read = lambda name: open(os.path.join(os.path.dirname(certificate), name), "rb").read()
        pair = (read("key.pem"), read("cert.pem"))
        port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    else:
        port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with open(os.path.join(folder, "port.new"), "w") as file:
        file.write(str(port))
    os.rename(os.path.join(folder, "port.new"), os.path.join(folder, "port"))
    server.wait_for_termination()


def chat(target, form):
    if form == "tls":
        channel = grpc.secure_channel(target, grpc.ssl_channel_credentials())
    else:
        channel = grpc.insecure_channel(target)
    of = lambda kind, name: getattr(channel, kind)(f"/{NAME}/{name}")
    trailer = lambda call: dict(call.trailing_metadata()).get("x-sum")
    unary = of("unary_unary", "Unary")
    answer, call = unary.with_call(b"hello", timeout=30)
    print("unary:", answer.decode(), "trailer", trailer(call))
    print("up:", of("stream_unary", "Up")((b"part" for _ in range(100)), timeout=30).decode(), "messages")
    call = of("unary_stream", "Down")(b"1000", timeout=30)
    print("down:", sum(1 for _ in call), "messages, trailer", trailer(call))
    # The next is sent when the former one has come back.
    said, words = [], iter([b"one", b"two", b"three"])
    ready = queue.Queue()
    ready.put(True)

    def messages():
        for word in words:
            ready.get(timeout=20)
            yield word

    for word in of("stream_stream", "Both")(messages(), timeout=30):
        said.append(word.decode())
        ready.put(True)
    print("both:", *said)
    token = SECRET.split()[1].decode()
    for label, name, message, more in [
        ("status:", "Fails", b"x", ()),
        ("secret:", "Unary", SECRET, ()),
        ("secret in a header:", "Unary", b"x", (("x-key", token),)),
        ("secret in a name:", token, b"x", ()),
    ]:
        try:
            print(label, of("unary_unary", name)(message, timeout=30, metadata=more))
        except grpc.RpcError as error:
            print(label, error.code().name, *([error.details()] if label == "status:" else []))
    print("after it:", unary(b"hello", timeout=30).decode())


if sys.argv[1] == "serve":
    serve(*sys.argv[2:])
else:
    chat(*sys.argv[2:])
