#!/usr/bin/env bash
# uvicorn 0.54.0 on CPython's asyncio: on a socket of one's own, answers on a kept connection come 40 ms late.
#
# Expected: uvicorn.Server.run(sockets=[listener]) serves as fast as uvicorn does on a host and a port.
# Seen: where the listener was made by socket.socket(AF_INET, SOCK_STREAM), as socket.create_server does it too, the
# median answer on a connection takes 40 ms more. With IPPROTO_TCP as the socket's third argument it does not.
# Why: uvicorn sends the head and the body of an answer apart. asyncio turns Nagle's algorithm off (TCP_NODELAY) only
# on sockets whose `proto` is IPPROTO_TCP, which one made without it does not say. So the body waits until the client
# acknowledges the head, which Linux delays by 40 ms.
# It matters to servers that open their socket before they load a model: half of a caption's time was waiting.
set -euo pipefail
folder="$(mktemp -d)"
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check uvicorn==0.54.0 h11==0.16.0
cat > "$folder/check.py" <<'PYTHON'
import http.client
import socket
import statistics
import threading
import time

import uvicorn


async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"5")]})
        await send({"type": "http.response.body", "body": b"hello"})


def milliseconds(*more):
    """Median time of an answer on one kept connection, where the listener is made with these arguments too."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, *more)
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    server = uvicorn.Server(uvicorn.Config(app, http="h11", loop="asyncio", lifespan="off", log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    connection = http.client.HTTPConnection("127.0.0.1", listener.getsockname()[1])
    seconds = []
    for _ in range(21):
        start = time.perf_counter()
        connection.request("GET", "/")
        assert connection.getresponse().read() == b"hello"
        seconds.append(time.perf_counter() - start)
    connection.close()
    server.should_exit = True
    thread.join()
    return statistics.median(seconds) * 1000


plain, named = milliseconds(), milliseconds(socket.IPPROTO_TCP)
print(f"uvicorn {uvicorn.__version__}: {plain:.1f} ms an answer; {named:.1f} ms where the socket names IPPROTO_TCP")
assert plain > 30 > 15 > named
PYTHON
"$folder/venv/bin/python" "$folder/check.py"
