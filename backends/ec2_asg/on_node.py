"""Runs on an instance, by whatever Python ≥ 3.9 is there; stands in its user data as text. Needs nothing but itself.

on_node.py await-service         returns when the instance is meant to work (not when it is put in store)
on_node.py worker SECONDS        prints the id of the worker that this instance is, once the manager has tagged it
on_node.py leave GROUP           ends this instance, and has the group want one fewer
on_node.py disk NAME             prints the device that was attached as NAME (such as /dev/sdf)
"""

import datetime
import hashlib
import hmac
import json
import os
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from typing import Any, Callable, Dict, Optional

HERE = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # the metadata service is behind no proxy


def metadata(path: str, default: Optional[str] = None) -> str:
    """By IMDSv2. What is not there is the default, or an error without one."""
    ask = urllib.request.Request(HERE + "/latest/api/token", method="PUT")
    ask.add_header("X-aws-ec2-metadata-token-ttl-seconds", "60")
    token = str(DIRECT.open(ask, timeout=5).read().decode())
    ask = urllib.request.Request(HERE + "/latest/" + path, headers={"X-aws-ec2-metadata-token": token})
    try:
        return str(DIRECT.open(ask, timeout=5).read().decode())
    except urllib.error.HTTPError as error:
        if error.code == 404 and default is not None:
            return default
        raise


def patiently(look: Callable[[], Any], seconds: float) -> Any:
    """Until it gives something: the service may be slow to come up, and what it tells too."""
    end, pause = time.monotonic() + seconds, 0.2
    while True:
        try:
            found, trouble = look(), "nothing yet"
        except OSError as error:
            found, trouble = None, str(error)
        if found:
            return found
        if time.monotonic() + pause > end:
            sys.exit("wm-node: the metadata service of this instance: %s" % trouble)
        time.sleep(pause)
        pause = min(pause * 1.5, 10)


def in_service() -> bool:
    return metadata("meta-data/autoscaling/target-lifecycle-state", "InService") == "InService"


def worker() -> str:
    tags = "meta-data/tags/instance/worker-manager:"
    name, index = metadata(tags + "submission", ""), metadata(tags + "index", "")
    return name + "-" + index if name and index else ""


def leave(group: str) -> bool:
    """One fewer wanted, so that no other instance is started in this one's place."""
    instance, region = metadata("meta-data/instance-id"), metadata("meta-data/placement/region")
    role = metadata("meta-data/iam/security-credentials/").split()[0]
    keys = json.loads(metadata("meta-data/iam/security-credentials/" + role))
    url = os.environ.get("AWS_ENDPOINT_URL")
    url = url or "https://autoscaling.%s.%s" % (region, metadata("meta-data/services/domain", "amazonaws.com"))
    body = {
        "Action": "TerminateInstanceInAutoScalingGroup",
        "Version": "2011-01-01",
        "InstanceId": instance,
        "ShouldDecrementDesiredCapacity": "true",
    }
    ask = signed(url, urllib.parse.urlencode(body).encode(), region, keys)
    try:
        urllib.request.urlopen(ask, timeout=30).read()
    except urllib.error.HTTPError as error:
        text = error.read(2000).decode("utf-8", "replace")
        if 400 <= error.code < 500 and "Throttling" not in text:
            print("wm-node: %s does not let this instance go, its manager has to: %s" % (group, text), file=sys.stderr)
            return True
        raise
    return True


def signed(url: str, body: bytes, region: str, keys: Dict[str, str]) -> urllib.request.Request:
    """https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html"""
    at = datetime.datetime.now(datetime.timezone.utc).strftime("%Y%m%dT%H%M%SZ")
    scope = "%s/%s/autoscaling/aws4_request" % (at[:8], region)
    headers = {
        "content-type": "application/x-www-form-urlencoded; charset=utf-8",
        "host": urllib.parse.urlsplit(url).netloc,
        "x-amz-date": at,
        "x-amz-security-token": keys["Token"],
    }
    names = ";".join(sorted(headers))
    lines = ["POST", "/", ""] + ["%s:%s" % (name, headers[name]) for name in sorted(headers)]
    request = "\n".join([*lines, "", names, hashlib.sha256(body).hexdigest()])
    to_sign = "\n".join(["AWS4-HMAC-SHA256", at, scope, hashlib.sha256(request.encode()).hexdigest()])
    key = ("AWS4" + keys["SecretAccessKey"]).encode()
    for part in scope.split("/"):
        key = hmac.new(key, part.encode(), "sha256").digest()
    headers["authorization"] = "AWS4-HMAC-SHA256 Credential=%s/%s, SignedHeaders=%s, Signature=%s" % (
        *(keys["AccessKeyId"], scope, names),
        hmac.new(key, to_sign.encode(), "sha256").hexdigest(),
    )
    return urllib.request.Request(url + "/", data=body, headers=headers)


def disk(name: str) -> Optional[str]:
    """Where it shows itself: by its name, by that of a Xen disk, or, as NVMe, as the first EBS disk that is blank."""
    for path in (name, name.replace("/dev/sd", "/dev/xvd")):
        if os.path.exists(path):
            return os.path.realpath(path)
    listed = subprocess.run(
        ["lsblk", "--json", "--output", "PATH,TYPE,MODEL,FSTYPE,MOUNTPOINT"], capture_output=True, check=True
    )
    for one in json.loads(listed.stdout)["blockdevices"]:
        blank = not (one.get("fstype") or one.get("mountpoint") or one.get("children"))
        if one["type"] == "disk" and blank and "Elastic Block Store" in (one.get("model") or ""):
            return str(one["path"])
    return None


def main(what: str, argument: str = "") -> None:
    if what == "await-service":
        patiently(in_service, float("inf"))
    elif what == "worker":
        print(patiently(worker, float(argument)))
    elif what == "leave":
        patiently(lambda: leave(argument), 600)
    elif what == "disk":
        print(patiently(lambda: disk(argument), 120))


if __name__ == "__main__":
    main(*sys.argv[1:])
