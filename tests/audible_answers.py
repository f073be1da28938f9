"""What is answered to one request, route by route? What the service would say, as far as it is known."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import audible_account
import audible_documents as documents
from audible_account import Device
from audible_documents import Title
from audible_http import Request
from household import picture

if TYPE_CHECKING:
    from fake_audible import FakeAudible, Fault

PDF = b"%PDF-1.4\n% our own\n%%EOF\n"


@dataclass
class Answer:
    """One answer, to a device that is known where it must be."""

    fake: FakeAudible
    request: Request
    device: Device | None
    asin: str
    market: str
    fault: Fault | None

    def give(self, name: str) -> None:
        method = getattr(self, f"_{name}", None)
        if method is None:
            self.request.send(404, {"message": f"The fake has no {self.request.what}"})
            return
        method()

    def _title(self) -> Title | None:
        """Return the title that is asked for; None, and it is said, where there is none."""
        title = self.fake.titles.get(self.asin)
        if title is None:
            self.request.send(404, {"message": f"{self.asin} is not known"})
        return title

    # --- sign-in ---------------------------------------------------------------------------------------------------------

    def _register(self) -> None:
        body = json.loads(self.request.body)
        serial = body["registration_data"]["device_serial"]
        allowed = self.fake.sign_ins.get(body["auth_data"].get("authorization_code", ""))
        if allowed is None or not audible_account.fits(allowed, body["auth_data"], serial):
            error = {"code": "InvalidValue", "message": "The authorization code is invalid or has expired"}
            self.request.send(401, {"response": {"error": error}, "request_id": "OWNREQUEST"})
            return
        del self.fake.sign_ins[body["auth_data"]["authorization_code"]]
        device = Device(
            account=allowed.account, serial=serial, market=allowed.market, with_username=allowed.with_username
        )
        self.fake.devices.append(device)
        self.request.send(200, device.registration())

    def _token(self) -> None:
        given = parse_qs(self.request.body.decode()).get("source_token", [""])[0]
        device = next((one for one in self.fake.devices if one.registered and one.refresh_token == given), None)
        if device is None:
            self.request.send(400, {"error": "invalid_grant", "error_description": "The token is not valid"})
            return
        device.access_token = f"Atna|{os.urandom(24).hex()}"
        self.request.send(200, {"access_token": device.access_token, "expires_in": 3600, "token_type": "bearer"})

    def _deregister(self) -> None:
        if self.device is None:
            self.request.send(401, {"response": {"error": {"code": "Unauthenticated", "message": "Who are you?"}}})
            return
        whole = json.loads(self.request.body)["deregister_all_existing_accounts"]
        for device in self.fake.devices:
            if device is self.device or (whole and device.account is self.device.account):
                device.registered = False
        self.request.send(200, {"response": {"success": {}}, "request_id": "OWNREQUEST"})

    def _profile(self) -> None:
        if self.device is None:
            self.request.send(401, {"error": "invalid_token"})
            return
        account = self.device.account
        self.request.send(200, {"user_id": account.customer, "name": account.owner, "email": "ada@example.org"})

    def _activation(self) -> None:
        assert self.device is not None
        self.request.send(200, self.device.account.activation_blob(), "application/octet-stream")

    # --- what is in the library ------------------------------------------------------------------------------------------

    def _library(self) -> None:
        self._listed([title for title in self.fake.titles.values() if title.parent is None])

    def _children(self) -> None:
        self._listed([title for title in self.fake.titles.values() if title.parent == self.asin])

    def _listed(self, titles: Sequence[Title]) -> None:
        assert self.device is not None
        query = self.request.query
        number, page = int(query.get("num_results", "50")), int(query.get("page", "1"))
        if not 1 <= number <= 1000 or page < 1:
            self.request.send(400, {"message": "1 validation error detected: Value at 'numResults' failed"})
            return
        mine = [one for one in titles if one.market == self.market and one.owned_by(self.device.account.customer)]
        if "state_token" in query:
            mine = [one for one in mine if one.changed > int(query["state_token"])]
        else:
            mine = [one for one in mine if one.status == query.get("status", "Active")]
        if "purchased_after" in query:
            after = datetime.fromisoformat(query["purchased_after"])
            mine = [one for one in mine if one.purchased > after]
        mine.sort(key=lambda one: (one.purchased, one.asin), reverse=True)
        shown = mine[(page - 1) * number : page * number]
        groups = documents.groups(query.get("response_groups", ""))
        sizes = query.get("image_sizes", "500").replace(" ", "").split(",")
        found = {
            "items": [documents.item(one, groups, sizes) for one in shown],
            "response_groups": ["always-returned", *sorted(groups or ())],
        }
        headers = {"total-count": str(len(mine)), "state-token": str(self.fake.state_token)}
        self.request.send(200, found, **headers)

    def _item(self) -> None:
        if title := self._title():
            groups = documents.groups(self.request.query.get("response_groups", ""))
            sizes = self.request.query.get("image_sizes", "500").replace(" ", "").split(",")
            self.request.send(200, {"item": documents.item(title, groups, sizes), "response_groups": []})

    def _catalog(self) -> None:
        if title := self._title():
            self.request.send(200, {"product": documents.item(title), "response_groups": []})

    def _metadata(self) -> None:
        if title := self._title():
            if title.aaxc is None and title.aax is None:
                self.request.send(404, documents.no_asset(title))
                return
            query = self.request.query
            groups = documents.groups(query.get("response_groups", ""))
            self.request.send(200, documents.metadata(title, groups, tree=query.get("chapter_titles_type") == "Tree"))

    def _annotations(self) -> None:
        if title := self._title():
            if title.annotations:
                self.request.send(200, documents.notes(title))
            else:
                self.request.send(404, {"message": "Not found"})

    def _cover(self) -> None:
        size = re.search(r"\._SL(\d+)_\.", self.request.path)
        self.request.send(200, picture("navy", side=int(size[1]) if size else 1500), "image/jpeg")

    def _pdf(self) -> None:
        title = self.fake.titles.get(self.asin)
        if title and title.pdf:
            self.request.send(200, PDF, "application/pdf")
        else:
            self.request.send(404, b"<html>There is no such page.</html>", "text/html")

    # --- licences and transfers ------------------------------------------------------------------------------------------

    def _licence(self) -> None:
        title = self._title()
        if title is None:
            return
        assert self.device is not None
        customer, now = self.device.account.customer, self.fake.now()
        body = json.loads(self.request.body)
        features = body.get("supported_media_features", {})
        kinds = set(features.get("drm_types") or body.get("supported_drm_types") or ())
        codecs = set(features.get("codecs", ["mp4a.40.2"]))
        if body.get("quality") not in {"High", "Normal"} or body.get("consumption_type") != "Download" or not kinds:
            self.request.send(400, {"message": "1 validation error detected"})
            return
        denied = title.denied
        if denied is None and (title.status != "Active" or not title.consumable):
            denied = ["RequesterEligibility"]
        if denied is not None:
            self.request.send(200, documents.refusal(title, customer, denied))
            return
        if title.aaxc is None or title.released > now or (title.podcast and "Mpeg" not in kinds):
            self.request.send(404, documents.no_asset(title))
            return
        if kinds - {"Adrm", "Mpeg"} or codecs - {"mp4a.40.2"}:  # who can take more gets what we can't use
            title = replace(title, drm="Widevine", address=f"https://own.cloudfront.net/{title.asin}/own.mpd")
        if body["quality"] == "Normal":
            title = replace(title, quality="AAX_22_64")
        sealed = self.device.sealed(title.asin, documents.voucher(title, customer, now))
        groups = documents.groups(body.get("response_groups", ""))
        self.request.send(200, documents.licence(title, sealed, customer, now, groups))

    def _aax(self) -> None:
        if title := self._title():
            if title.aax is None:
                self.request.send(404, {"message": "No such content"})
                return
            codec = self.request.query.get("codec", "")
            address = f"https://cds.audible.com/download?asin={title.asin}&codec={codec}&type=AUDI&token=own-signature"
            self.request.send(302, b"", Location=address)

    def _cds(self) -> None:
        if title := self._title():
            if title.aax is None or "codec" not in self.request.query:
                self.request.send(200, b"File Assembly error: Invalid Audio Format.", "text/html")
                return
            self._transfer(title, title.aax, "cds", "audio/vnd.audible.aax")

    def _cdn(self) -> None:
        if title := self._title():
            if int(self.request.query.get("Expires", "0")) <= self.fake.now().timestamp() or title.aaxc is None:
                self.request.send(403, b"<Error><Code>AccessDenied</Code></Error>", "application/xml")
                return
            kind = "audio/mpeg" if title.podcast else "audio/vnd.audible.aax"
            self._transfer(title, title.aaxc, "cdn", kind)

    def _transfer(self, title: Title, path: Path, route: str, kind: str) -> None:
        size = path.stat().st_size
        tag = f'"{title.asin}-{size}-{title.edition}"'
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.request.headers.get("range", ""))
        if self.request.headers.get("if-range", tag) != tag:
            asked = None
        start = int(asked[1]) if asked else 0
        stop = min(int(asked[2]) + 1, size) if asked and asked[2] else size
        headers = {"Accept-Ranges": "bytes", "ETag": tag}
        if asked and start >= size:
            self.request.send(416, b"", kind, **headers, **{"Content-Range": f"bytes */{size}"})
            return
        if asked:
            headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
        if self.fault and self.fault.content_type:
            kind = self.fault.content_type
        self.request.begin(206 if asked else 200, stop - start, kind, **headers)
        if self.request.method == "HEAD":
            return
        end = stop if self.fault is None or self.fault.cut is None else min(stop, start + self.fault.cut)
        pause = self.fake.hold_after(route, title.asin)
        with path.open("rb") as file:
            file.seek(start)
            if pause is not None and start + pause < end:
                self.request.pour(file, pause)
                self.fake.wait(route, title.asin)
            self.request.pour(file, end - file.tell())
        if end < stop:
            self.request.hang_up()
