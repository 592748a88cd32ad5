"""A provider of OpenID Connect on loopback, which can be told to lie."""

import base64
import hmac
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, urlencode

from authlib.oauth2.rfc7636 import create_s256_code_challenge
from joserfc import jwt
from joserfc.jwk import RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from tests.listener.console.gate.conftest import served

CLIENT, SECRET = "monro", "client secret of a test"


class Provider:
    """Vouches for `person` at once, without asking."""

    def __init__(self) -> None:
        self.key = RSAKey.generate_key(2048, {"kid": "first", "use": "sig", "alg": "RS256"})
        self.published = [self.key]
        self.algorithm = "RS256"
        self.person: dict[str, Any] = {
            "sub": "7f3c",
            "preferred_username": "Otto",
            "groups": ["radiology", "staff"],
        }
        self.methods = ["client_secret_basic"]
        self.claims: Callable[[dict[str, Any]], dict[str, Any]] = lambda claims: claims
        self.answer: Callable[[dict[str, str]], dict[str, str]] = lambda answer: answer
        self.description: dict[str, Any] = {}
        self.asked: list[str] = []
        self.url = ""
        self._codes: dict[str, dict[str, str]] = {}

    @contextmanager
    def open(self) -> Iterator["Provider"]:
        routes = [
            Route("/.well-known/openid-configuration", self.describe),
            Route("/authorize", self.authorize),
            Route("/token", self.token, methods=["POST"]),
            Route("/keys", self.keys),
        ]
        with served(Starlette(routes=routes)) as port:
            self.url = f"http://127.0.0.1:{port}"
            yield self

    async def describe(self, _request: Request) -> Response:
        self.asked.append("description")
        return JSONResponse(
            {
                "issuer": self.url,
                "authorization_endpoint": f"{self.url}/authorize",
                "token_endpoint": f"{self.url}/token",
                "jwks_uri": f"{self.url}/keys",
                "token_endpoint_auth_methods_supported": self.methods,
            }
            | self.description
        )

    async def authorize(self, request: Request) -> Response:
        asked = dict(request.query_params)
        assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT)
        assert asked["code_challenge_method"] == "S256"
        code = f"code-{len(self._codes)}"
        self._codes[code] = asked
        answer = self.answer({"code": code, "state": asked["state"]})
        return RedirectResponse(f"{asked['redirect_uri']}?{urlencode(answer)}")

    async def token(self, request: Request) -> Response:
        self.asked.append("token")
        sent = {
            name: values[0] for name, values in parse_qs((await request.body()).decode()).items()
        }
        if "client_secret_basic" in self.methods:
            pair = base64.b64encode(f"{CLIENT}:{SECRET}".encode()).decode()
            proven = request.headers.get("authorization") == f"Basic {pair}"
        else:
            proven = (sent.get("client_id"), sent.get("client_secret")) == (CLIENT, SECRET)
        asked = self._codes.pop(sent.get("code", ""), None)
        if not proven or asked is None or sent["redirect_uri"] != asked["redirect_uri"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        if create_s256_code_challenge(sent["code_verifier"]) != asked["code_challenge"]:
            return JSONResponse({"error": "invalid_grant"}, 400)
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 300}
        claims = self.claims(claims | {"nonce": asked["nonce"]} | self.person)
        return JSONResponse(
            {"access_token": "access", "token_type": "Bearer", "id_token": self.signed(claims)}
        )

    def signed(self, claims: dict[str, Any]) -> str:
        header = {"alg": self.algorithm, "kid": self.key.kid}
        if self.algorithm == "RS256":
            return jwt.encode(header, claims, self.key, algorithms=["RS256"])
        written = ".".join(encoded(json.dumps(each).encode()) for each in (header, claims))
        signature = b""
        if self.algorithm == "HS256":  # with what everybody can read
            public = self.published[0].as_pem(private=False)
            signature = hmac.digest(public, written.encode(), "sha256")
        return f"{written}.{encoded(signature)}"

    async def keys(self, _request: Request) -> Response:
        self.asked.append("keys")
        return JSONResponse({"keys": [key.as_dict(private=False) for key in self.published]})


def encoded(part: bytes) -> str:
    return base64.urlsafe_b64encode(part).rstrip(b"=").decode()
