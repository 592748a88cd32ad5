"""Another vouches for people: OpenID Connect Core 1.0, authorization code flow with PKCE.

Nothing is asked of the provider before somebody signs in. A browser carries one secret to the
provider and back, in a cookie; state, nonce and verifier of that sign-in are made from it, so that
nothing is remembered here, and what comes back with another browser is worth nothing.
"""

import hmac
import json
import logging
import secrets
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from authlib.common.security import is_secure_transport
from authlib.oauth2.auth import ClientAuth
from authlib.oauth2.base import OAuth2Error
from authlib.oauth2.rfc6749.parameters import (
    parse_authorization_code_response,
    prepare_grant_uri,
    prepare_token_request,
)
from authlib.oauth2.rfc7636 import create_s256_code_challenge
from authlib.oidc.core import CodeIDToken
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet
from urllib3 import PoolManager, Timeout
from urllib3.exceptions import HTTPError

from listener.console.gate.accounts import Person, Role
from listener.errors import BadSettings, MonroError
from listener.remote import Oidc

log = logging.getLogger(__name__)

ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519",
)  # fmt: skip
"""Of signatures with a key that the provider keeps for itself."""

CONNECT_SECONDS: Final = 5.0
READ_SECONDS: Final = 10.0
LARGEST_ANSWER_BYTES: Final = 1 << 20

LEEWAY_SECONDS: Final = 60
"""By which the provider's clock may differ from ours."""

KNOWN_SECONDS: Final = 3600.0
"""For which what the provider says of itself is not asked for again."""

NEW_KEY_SECONDS: Final = 60.0
"""Keys are asked for again when none fits, and no sooner than this: anybody may name a key."""

SECRET_BYTES: Final = 32

LONGEST_SUBJECT: Final = 255
"""Characters (OpenID Connect Core 1.0, 2)."""


class NotVouched(MonroError):
    """The provider did not vouch for somebody, or not in a way that can be believed."""


class ProviderAway(MonroError):
    """The provider cannot be asked, or does not answer as one; it may later."""


@dataclass(frozen=True)
class Errand:
    """What a browser carries to the provider and back.

    Attributes:
        secret: of this sign-in.
        wanted: path to go on to.
    """

    secret: str
    wanted: str

    @classmethod
    def begin(cls, wanted: str) -> "Errand":
        """Begin a sign-in."""
        return cls(secrets.token_urlsafe(SECRET_BYTES), wanted)

    @property
    def state(self) -> str:
        """Ties the answer to the browser that asked."""
        return self._derived("state")

    @property
    def nonce(self) -> str:
        """Ties the ID token to this sign-in."""
        return self._derived("nonce")

    @property
    def verifier(self) -> str:
        """Ties the code to us (RFC 7636)."""
        return self._derived("verifier")

    def _derived(self, purpose: str) -> str:
        return hmac.digest(self.secret.encode(), purpose.encode(), "sha256").hex()


@dataclass(frozen=True)
class Identity:
    """Somebody whom the provider vouches for.

    Attributes:
        name: of the account.
        role: that the lists of the settings give; None: they may not come in.
        person: as the provider knows them for ever.
    """

    name: str
    role: Role | None
    person: Person


class Provider:
    """The provider of the settings; its methods wait for it.

    Args:
        oidc: of the settings.
        clock: seconds since the epoch.

    Raises:
        BadSettings: `authorities` cannot be used.
    """

    def __init__(self, oidc: Oidc, clock: Callable[[], float]) -> None:
        self._oidc, self._clock = oidc, clock
        try:
            context = ssl.create_default_context(cafile=oidc.authorities)
        except OSError as error:
            raise BadSettings(
                f"MONRO_OIDC: authorities {oidc.authorities} cannot be used ({error.strerror}): "
                "give a PEM file of CA certificates"
            ) from None
        timeout = Timeout(connect=CONNECT_SECONDS, read=READ_SECONDS)
        self._pool = PoolManager(timeout=timeout, retries=False, ssl_context=context)
        self._lock = threading.Lock()
        self._described: tuple[float, dict[str, Any]] | None = None
        self._held: tuple[float, KeySet] | None = None

    def address(self, errand: Errand, back: str) -> str:
        """Where a browser goes to sign in.

        Args:
            errand: that it carries.
            back: URL that it comes back to.

        Raises:
            ProviderAway: the provider does not say where.
        """
        address: str = prepare_grant_uri(
            self._endpoint("authorization_endpoint"),
            self._oidc.client_id,
            "code",
            redirect_uri=back,
            scope="openid profile email",
            state=errand.state,
            nonce=errand.nonce,
            code_challenge=create_s256_code_challenge(errand.verifier),
            code_challenge_method="S256",
        )
        return address

    def identity(self, errand: Errand, back: str, came_to: str) -> Identity:
        """Whom the provider vouches for.

        Args:
            errand: that the browser carried.
            back: URL that it was to come back to.
            came_to: URL that it came back to, with the provider's answer.

        Raises:
            NotVouched: for nobody, or the answer is not the provider's to this sign-in.
            ProviderAway: it cannot be asked now.
        """
        try:
            answer = parse_authorization_code_response(came_to, errand.state)
        except OAuth2Error as error:
            raise NotVouched(
                f"the provider sent no code for this sign-in ({error.error})"
            ) from None
        if answer.get("iss", self._oidc.issuer) != self._oidc.issuer:  # RFC 9207
            raise NotVouched("another provider answered")
        given = self._redeem(answer["code"], back, errand.verifier)
        claims = self._claims(given, errand.nonce)
        return self._identified(claims)

    def _redeem(self, code: str, back: str, verifier: str) -> dict[str, Any]:
        """The tokens of a code."""
        body = prepare_token_request(
            "authorization_code", redirect_uri=back, code=code, code_verifier=verifier
        )
        headers = {
            "Accept": "application/json",
            "Content-Type": "application/x-www-form-urlencoded",
        }
        usual = ["client_secret_basic"]
        methods = self._description().get("token_endpoint_auth_methods_supported", usual)
        method = "client_secret_basic" if usual[0] in methods else "client_secret_post"
        url, headers, body = ClientAuth(self._oidc.client_id, self._secret(), method).prepare(
            "POST", self._endpoint("token_endpoint"), headers, body
        )
        status, given = self._ask("POST", url, headers=headers, body=body)
        if status != 200 or not isinstance(given.get("id_token"), str):
            # The words of an answer are the provider's: they may hold what it was sent.
            raise NotVouched(f"the provider gave no ID token for the code (status {status})")
        return given

    def _claims(self, given: Mapping[str, Any], nonce: str) -> CodeIDToken:
        """What an ID token says, once all is proved that must be (OpenID Connect Core 3.1.3.7)."""
        options = {
            "iss": {"essential": True, "value": self._oidc.issuer},
            "aud": {"essential": True, "value": self._oidc.client_id},
        }
        params = {
            "nonce": nonce,
            "client_id": self._oidc.client_id,
            "access_token": given.get("access_token"),
        }
        try:
            token = self._decoded(given["id_token"])
            claims = CodeIDToken(token.claims, token.header, options, params)
            claims.validate(int(self._clock()), LEEWAY_SECONDS)
        except (JoseError, ValueError) as error:
            found = getattr(error, "error", type(error).__name__)
            claim = getattr(error, "claim", None)
            raise NotVouched(f"the ID token is not to be believed ({claim or found})") from None
        return claims

    def _decoded(self, id_token: str) -> jwt.Token:
        """A token whose signature is the provider's; raises JoseError or ValueError."""
        asked_at, keys = self._keys(KNOWN_SECONDS)
        try:
            return jwt.decode(id_token, keys, algorithms=ALGORITHMS)
        except (JoseError, ValueError):
            again_at, keys = self._keys(NEW_KEY_SECONDS)
            if again_at == asked_at:
                raise
            return jwt.decode(id_token, keys, algorithms=ALGORITHMS)

    def _identified(self, claims: Mapping[str, Any]) -> Identity:
        name = claims.get(self._oidc.name)
        if not isinstance(name, str) or not name:
            raise NotVouched(f"the ID token has no claim {self._oidc.name}")
        if self._oidc.name == "email" and claims.get("email_verified") is not True:
            raise NotVouched("the provider does not say that it verified the e-mail address")
        subject = claims["sub"]
        if not isinstance(subject, str) or not 1 <= len(subject) <= LONGEST_SUBJECT:
            raise NotVouched("the ID token's sub is no text of 1 to 255 characters")
        found = claims.get(self._oidc.claim)
        groups = {found} if isinstance(found, str) else set(_texts(found))
        role: Role | None = None
        if not groups.isdisjoint(self._oidc.operators):
            role = "operator"
        elif not groups.isdisjoint(self._oidc.viewers):
            role = "viewer"
        return Identity(name, role, Person(self._oidc.issuer, subject))

    def _secret(self) -> str:
        """Read each time, so that it may change."""
        try:
            return self._oidc.client_secret_file.read_text("utf-8").strip()
        except (OSError, UnicodeDecodeError) as error:
            log.error(
                "nobody can sign in by MONRO_OIDC: client_secret_file %s is not to be had (%s)",
                self._oidc.client_secret_file,
                getattr(error, "strerror", "no text"),
            )
            raise ProviderAway("the client secret is not to be had") from None

    def _description(self) -> dict[str, Any]:
        """What the provider says of itself (OpenID Connect Discovery 1.0)."""
        with self._lock:
            if self._described is None or self._is_old(self._described[0], KNOWN_SECONDS):
                url = f"{self._oidc.issuer.rstrip('/')}/.well-known/openid-configuration"
                status, found = self._ask("GET", url)
                if status != 200 or found.get("issuer") != self._oidc.issuer:
                    raise self._away(f"{url} does not describe the issuer {self._oidc.issuer}")
                self._described = self._clock(), found
            return self._described[1]

    def _endpoint(self, name: str) -> str:
        found = self._description().get(name)
        if not isinstance(found, str) or not is_secure_transport(found):
            raise self._away(f"its {name} is no https URL")
        return found

    def _keys(self, oldest_seconds: float) -> tuple[float, KeySet]:
        """The provider's keys, and when they were asked for."""
        url = self._endpoint("jwks_uri")
        with self._lock:
            if self._held is None or self._is_old(self._held[0], oldest_seconds):
                status, found = self._ask("GET", url)
                if status != 200:
                    raise self._away(f"{url} answers with status {status}")
                try:
                    keys = KeySet.import_key_set({"keys": found.get("keys", [])})
                except (JoseError, TypeError, ValueError):
                    raise self._away(f"{url} has no keys") from None
                self._held = self._clock(), keys
            return self._held

    def _is_old(self, at: float, seconds: float) -> bool:
        return not 0 <= self._clock() - at < seconds

    def _ask(self, method: str, url: str, **request: Any) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of an answer; redirects are not followed."""
        try:
            response = self._pool.request(
                method, url, redirect=False, preload_content=False, **request
            )
            try:
                text = response.read(LARGEST_ANSWER_BYTES)  # cut JSON is none
            finally:
                response.close()
            found = json.loads(text)
        except HTTPError as error:
            raise self._away(f"no answer ({type(error).__name__})") from None
        except ValueError:
            found = None
        if not isinstance(found, dict):
            raise self._away(f"status {response.status}, and no JSON object")
        return response.status, found

    def _away(self, found: str) -> ProviderAway:
        log.error("the provider %s of MONRO_OIDC: %s", self._oidc.issuer, found)
        return ProviderAway(f"the provider {self._oidc.issuer} does not answer as it should")


def _texts(found: object) -> list[str]:
    return [each for each in found if isinstance(each, str)] if isinstance(found, list) else []
