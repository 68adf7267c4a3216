"""The registry of identity numbers, simulated: a part of the simulated payment provider's HTTP side, as payment companies offer it.

Contract and the names it is tried with: schemas/registry_api.py. It keeps nothing: a name always gets the same verdict."""

from __future__ import annotations

from aiohttp import web
from pydantic import ValidationError

from schemas.registry_api import PATH, TEST_NAMES, RealNameQuestion, RealNameVerdict


async def answer(request: web.Request) -> web.Response:
    try:
        question = RealNameQuestion.model_validate_json(await request.read())
    except ValidationError:  # whom it was about is not told
        return web.json_response({"type": "about:blank", "title": "bad body", "status": 422}, status=422,
                                 content_type="application/problem+json")
    verdict = RealNameVerdict(outcome=TEST_NAMES.get(question.name, "match"))
    return web.Response(text=verdict.model_dump_json(), content_type="application/json")


def add_to(app: web.Application) -> None:
    app.router.add_post(PATH, answer)
