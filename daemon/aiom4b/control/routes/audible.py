"""What can be done with Audible? Signing in and out, looking through the library, fetching titles of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query

from aiom4b.control.problems import documented
from aiom4b.control.routes.jobs import check_scheme, told
from aiom4b.control.routes.parts import Limit, Offset, TheService
from aiom4b.control.schemas import audible, names, work
from aiom4b.errors import Exit, NeedsAttention
from aiom4b.jobs.title import Asin, Profile, TitleStatus

router = APIRouter(tags=["audible"])
APath = Annotated[
    Profile, Path(pattern=audible.PROFILE, description="The owner's name for one account in one marketplace.")
]
AQuery = Annotated[Profile | None, Query(pattern=audible.PROFILE, description="Only of this account.")]

# --- the library --------------------------------------------------------------------------------------------------------


@router.get("/library")
async def library(
    service: TheService,
    status: Annotated[TitleStatus | None, Query(description="Only titles of this status.")] = None,
    search: Annotated[str, Query(max_length=200, description="Only titles with this in what is told of them.")] = "",
    since: Annotated[audible.Since | None, Query(description="Only what changed since, with its zone.")] = None,
    profile: AQuery = None,
    limit: Limit = 100,
    offset: Offset = 0,
) -> audible.TitlesDocument:
    """List the titles of all accounts, or of one."""
    found, total = await service.store.titles(
        profile=profile, status=status, search=search, since=since, limit=limit, offset=offset
    )
    items = [audible.TitleDocument.of(title) for title in found]
    return audible.TitlesDocument(items=items, total=total, limit=limit, offset=offset)


@router.get("/library/{asin}", responses=documented(404))
async def title(
    asin: Annotated[Asin, Path(description="Ten characters that name a title at Audible.")],
    service: TheService,
    profile: AQuery = None,
) -> audible.WholeTitleDocument:
    """Tell everything about one title."""
    found = await service.store.title(asin, profile)
    if found is None:
        raise NeedsAttention(
            "title.missing",
            f"There is no title {names.shown(asin)} in the library of any account that is signed in.",
            remedy="`aiom4b audible list` shows them all; `aiom4b audible sync` asks Audible for new ones.",
            exit=Exit.NOT_FOUND,
        )
    return audible.WholeTitleDocument.of(found)


@router.post("/library/sync", status_code=202, responses=documented(404))
async def sync(service: TheService, request: audible.SyncRequest | None = None) -> audible.SyncDocument:
    """Look for changes in the library of all accounts, or of one; events tell what was found."""
    wanted = request or audible.SyncRequest()
    accounts = await service.account.status()
    known = [account.profile for account in accounts if account.device or not account.pending]
    if not known:
        raise _absent("audible.no_account", "Nobody is signed in at Audible.")
    if wanted.profile is not None and wanted.profile not in known:
        raise _absent("profile.missing", f"No account is signed in under the name {wanted.profile}.")
    service.account.request_sync(wanted.profile, full=wanted.full)
    profiles = known if wanted.profile is None else [wanted.profile]
    return audible.SyncDocument(profiles=list(profiles), full=wanted.full)


@router.post("/jobs/download", status_code=202, responses=documented(404, 422))
async def download(request: audible.DownloadRequest, service: TheService) -> work.AcceptedDocument:
    """Fetch titles, and make their books: {"asin": …}, {"asins": […]}, or {"new": true} for all that are new."""
    jobs = await service.account.download(request.wanted())
    return work.AcceptedDocument(jobs=[told(service, job) for job in jobs])


@router.post("/jobs/convert", status_code=202, responses=documented(404, 409, 422))
async def convert(request: audible.TitleRequest, service: TheService) -> work.AcceptedDocument:
    """Make the book of a title, which is downloaded first where it is not here yet."""
    await check_scheme(request.naming_scheme)
    job = await service.account.convert(request.asin, request.options(), request.priority)
    return work.AcceptedDocument(jobs=[told(service, job)])


# --- accounts -----------------------------------------------------------------------------------------------------------


@router.get("/accounts")
async def accounts(service: TheService) -> audible.AccountsDocument:
    """Tell how each account stands."""
    items = [audible.AccountDocument.of(account) for account in await service.account.status()]
    return audible.AccountsDocument(items=items, total=len(items))


@router.post("/accounts/{profile}/sign-in", responses=documented(422))
async def sign_in(profile: APath, request: audible.SignInRequest, service: TheService) -> audible.AddressDocument:
    """Begin to sign in: open the address in a browser, sign in there, and finish with the address where that ends."""
    address = await service.account.begin_sign_in(profile, request.country, with_username=request.with_username)
    return audible.AddressDocument(address=address)


@router.post("/accounts/{profile}/sign-in/finish", responses=documented(404, 422))
async def finish(profile: APath, request: audible.FinishRequest, service: TheService) -> audible.AccountDocument:
    """Finish to sign in. The whole address is needed: it holds a code that is good once and for minutes."""
    account = await service.account.finish_sign_in(profile, request.address.get_secret_value())
    return audible.AccountDocument.of(account)


@router.post("/accounts/{profile}/import", responses=documented(422))
async def import_(profile: APath, request: audible.ImportRequest, service: TheService) -> audible.AccountDocument:
    """Take over the sign-in of audible-cli or Libation. That program shares it from then on: signing out ends it for both."""
    password = request.password.get_secret_value() if request.password is not None else None
    account = await service.account.import_identity(profile, request.content(), password, request.country)
    return audible.AccountDocument.of(account)


@router.delete("/accounts/{profile}", status_code=204, responses=documented(404, 422))
async def sign_out(
    profile: APath,
    service: TheService,
    forced: Annotated[bool, Query(description="Forget the account even where Audible can't be told.")] = False,
) -> None:
    """Deregister this device and forget the account. Books, backups and other devices stay."""
    await service.account.sign_out(profile, forced=forced)


def _absent(code: str, reason: str) -> NeedsAttention:
    return NeedsAttention(
        code,
        reason,
        remedy="Sign in with `aiom4b audible login --country CC`; `aiom4b audible status` shows who is.",
        exit=Exit.NOT_FOUND,
    )
