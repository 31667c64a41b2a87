"""The metadata services of three clouds, as far as they tell of a machine's end: paths and answers as their pages show
them."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

TOKEN = "a-token"


class FakeCloud:
    """`answers[path]` is text (200) or (status, text); everything else is 404. `headers` are needed on every GET."""

    def __init__(self, headers: dict[str, str]) -> None:
        self.answers: dict[str, Any] = {}
        self.headers = headers
        self.asked: list[str] = []
        cloud = self

        class Handler(BaseHTTPRequestHandler):
            def do_PUT(self) -> None:
                right = self.path == "/latest/api/token" and self.headers["X-aws-ec2-metadata-token-ttl-seconds"]
                self._answer(200 if right else 403, TOKEN)

            def do_GET(self) -> None:
                cloud.asked.append(self.path)
                if any(self.headers[name] != value for name, value in cloud.headers.items()):
                    return self._answer(401, "")
                answer = cloud.answers.get(self.path, (404, ""))
                return self._answer(*(answer if isinstance(answer, tuple) else (200, answer)))

            def _answer(self, status: int, text: str) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(text.encode())))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *args: Any) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self.url = f"http://{self.address}"

    def __enter__(self) -> "FakeCloud":
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


def ec2() -> FakeCloud:
    return FakeCloud({"X-aws-ec2-metadata-token": TOKEN})


def azure(name: str) -> FakeCloud:
    cloud = FakeCloud({"Metadata": "true"})
    cloud.answers["/metadata/instance/compute/name?api-version=2021-02-01&format=text"] = name
    schedule(cloud)
    return cloud


def schedule(cloud: FakeCloud, *events: dict[str, Any]) -> None:
    path = "/metadata/scheduledevents?api-version=2020-07-01"
    cloud.answers[path] = json.dumps({"DocumentIncarnation": len(events), "Events": events})


def event(kind: str, *names: str, not_before: str = "Fri, 20 Nov 2026 08:22:00 GMT", status: str = "Scheduled") -> Any:
    return {"EventId": "e", "EventStatus": status, "EventType": kind, "ResourceType": "VirtualMachine",
            "Resources": list(names), "NotBefore": not_before, "Description": "", "EventSource": "Platform",
            "DurationInSeconds": -1}  # fmt: skip


def compute_engine() -> FakeCloud:
    cloud = FakeCloud({"Metadata-Flavor": "Google"})
    cloud.answers["/computeMetadata/v1/instance/preempted"] = "FALSE"
    cloud.answers["/computeMetadata/v1/instance/maintenance-event"] = "NONE"
    return cloud
