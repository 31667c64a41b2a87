"""A worker without a token comes: its platform is asked who it is, its manager has said whose worker that is.

Anybody may call this, so nothing goes out before a launch waits for such workers and the proof is made for us.
"""

from typing import Any

from starlette.responses import Response

from worker.protocol import Register, Registered
from worker_manager.hub.endpoint import Call, Endpoint, Need
from worker_manager.hub.identity import BadProof, Denied, Proof, proof_of
from worker_manager.hub.problems import Problem
from worker_manager.hub.routes.agents import registration
from worker_manager.hub.services import Services, reply
from worker_manager.hub.types import NoQuery
from worker_manager.hub.vouching import Unanswered

MAX_BODY = 65_536
AGAIN = {"Retry-After": "5"}


async def join(call: Call[NoQuery, dict[str, Any]]) -> Response:
    hub = call.hub
    message = registration(call.body)
    if not await hub.read(hub.store.awaits_identities):
        raise Problem(503, "identity-not-known", "no launch waits for workers without a token", headers=AGAIN)
    names = await _vouched_for(hub, _proof(hub, message, call.body.get("identity")))
    return reply(await hub.write(hub.store.join(message, names)), 201)


def _proof(hub: Services, message: Register, identity: Any) -> Proof:
    try:
        return proof_of(identity, message["nonce"], message["credential_sha256"], hub.own_names)
    except BadProof as error:
        raise Problem(401, "identity-refused", f"this does not prove who you are: {error}") from None


async def _vouched_for(hub: Services, proof: Proof) -> tuple[str, ...]:
    try:
        return await hub.vouching.names(proof)
    except Denied as error:
        raise Problem(401, "identity-refused", f"{proof.host} does not vouch for you: {error}") from None
    except Unanswered as error:
        text = f"{proof.host} could not be asked who you are: {error}"
        raise Problem(503, "identity-unverified", text, headers=AGAIN) from None


ENDPOINTS = (
    Endpoint(
        "POST",
        "/v1/join",
        Need.IDENTITY,
        join,
        "A worker that holds no token comes, with an identity that its platform vouches for. An identical repeat gets "
        "the same answer",
        body=Register,
        reply=Registered,
        status=201,
        max_body=MAX_BODY,
    ),
)
