"""One step, asked for by `fwlab do`: read as a lab file's would be, and done to a ground.

The steps are those of `labs.procedure.verbs` that a ground alone can take. It must not know how a deed is done.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from labs.network.errors import LabError
from labs.procedure.ground import Ground
from labs.procedure.problems import from_validation
from labs.procedure.steps import Arguments
from labs.procedure.verbs import VERBS, Verb
from labs.words import did_you_mean

STEPS = {name: verb for name, verb in VERBS.items() if verb.deed is not None}


def step_arguments(name: str, value: object) -> dict[str, Any]:
    """The arguments of a step by name; a bare value is its first argument. All problems in one error."""
    keys = _verb(name).model.keys()
    given = dict(value) if isinstance(value, Mapping) else {} if value is None else {keys[0]: value}
    problems = [f"unknown key {key}" for key in given if key not in keys]
    problems += [f"{key} is missing" for key in keys if key not in given and _needed(STEPS[name].model, key)]
    if problems:
        raise LabError(f"{name}: {'; '.join(problems)}; it takes {', '.join(f'{key}=…' for key in keys)}")
    return given


def read_step(name: str, value: object) -> tuple[Verb, Arguments]:
    """A step's verb and its arguments, as a lab file's would be read."""
    verb = _verb(name)
    given = value if isinstance(value, Mapping) else step_arguments(name, value)
    try:
        return verb, verb.model.model_validate(given)
    except ValidationError as error:
        raise LabError("\n".join(f"{name}: {problem}" for problem in from_validation(error, given, ""))) from None


async def perform(ground: Ground, step: object) -> Any:
    """Do one step, given as `{name: arguments}`: to each that it names, one after the other. Returns what was answered;
    of several, by name."""
    if not isinstance(step, Mapping) or len(step) != 1:
        raise LabError("a step is one name with its arguments, such as {\"cut\": {\"link\": \"sync\"}}")
    (name, value), = step.items()
    verb, what = read_step(str(name), value)
    assert verb.deed is not None
    answers = {target: await verb.deed(ground, target, what) for target in what.targets(ground.members)}
    if len(answers) == 1:
        return next(iter(answers.values()))
    return {target: answer for target, answer in answers.items() if answer is not None} or None


def _verb(name: str) -> Verb:
    if name not in STEPS:
        raise LabError(f"there is no step {name}{did_you_mean(name, STEPS)}; steps: {', '.join(STEPS)}")
    return STEPS[name]


def _needed(model: type[Arguments], key: str) -> bool:
    field = model.model_fields.get(model.also.get(key, key))
    return field is None or field.is_required()
