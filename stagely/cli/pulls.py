"""What opens, moves and closes pull requests: the forge for the repository, the api for its project."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from stagely.cli import names
from stagely.cli.api import ApiClient
from stagely.cli.bodies import EnvironmentView, ProjectView
from stagely.cli.installation import Installation
from stagely.cli.refusal import CommandFailed, NotAcceptable
from stagely.cli.repository import Checkout
from stagely.dev.forge.client import ForgeClient, Pull
from stagely.errors import Actor, StagelyError

OWNER = "local"  # The forge's only account.
BRANCHES = "stagely/"  # Before the local branch's name: a pull request's branch is never the forge's `main`.


@dataclass(frozen=True, slots=True)
class Pushed:
    """A pull request that has the commit now. `is_new`: it was opened, or opened again, for it."""

    project: str
    repo: str
    pr: int
    sha: str
    is_new: bool
    page: str


@contextmanager
def in_our_words() -> Iterator[None]:
    """The forge's errors as the CLI's."""
    try:
        yield
    except StagelyError as error:
        kind = NotAcceptable if error.actor is Actor.USER else CommandFailed
        raise kind(str(error)) from error


class Pulls:
    """One installation's pull requests."""

    def __init__(self, installation: Installation, api: ApiClient, forge: ForgeClient) -> None:
        self._installation = installation
        self._api = api
        self._forge = forge

    def open(self, checkout: Checkout, number: int | None) -> Pushed:
        """Put the commit into a pull request: one that is open already, a closed one of this number, or a new one."""
        name = names.name_of(checkout.root, self._installation.state)
        repo = f"{OWNER}/{name}"
        with in_our_words():
            self._forge.ensure_repo(name)
            project = self._project(name)
            found = self._find(repo, checkout, number)
            if found is not None:
                return self._push(project, repo, checkout, found)
            branch = _branch(checkout, number)
            self._forge.push(repo, checkout.root, checkout.sha, branch)
            pull = self._forge.open_pull(repo, branch, checkout.subject[:256], number=number)
        return Pushed(project.id, repo, pull.number, checkout.sha, is_new=True, page=pull.html_url)

    def push(self, checkout: Checkout, number: int | None) -> Pushed:
        """Put the commit into the open pull request. Raises NotAcceptable when there is none."""
        name = names.known_name(checkout.root, self._installation.state)
        repo = f"{OWNER}/{name}"
        with in_our_words():
            found = self._find(repo, checkout, number) if name else None
            if name is None or found is None or found.state != "open":
                which = f"pull request {number}" if number else "pull request"
                raise NotAcceptable(
                    f"{checkout.root} has no open {which}. Open one: "
                    f"stagely up {checkout.root}{self._installation.option}"
                )
            return self._push(self._project(name), repo, checkout, found)

    def close(self, repo: str, number: int) -> None:
        """Close it on the forge. Closed already: nothing happens."""
        with in_our_words():
            self._forge.update_pull(repo, number, "closed")

    def is_open(self, repo: str, number: int) -> bool:
        with in_our_words():
            return any(pull.number == number and pull.state == "open" for pull in self._forge.pulls(repo))

    def last_comment(self, repo: str, number: int) -> str:
        """What Stagely says on the pull request; "" when it has not said anything yet."""
        with in_our_words():
            found = self._forge.comments(repo, number)
        return found[-1].body if found else ""

    def open_of(self, checkout: Checkout, number: int | None) -> tuple[str, Pull]:
        """Repository and pull request that `close PATH` means. Raises NotAcceptable when there is none."""
        name = names.known_name(checkout.root, self._installation.state)
        repo = f"{OWNER}/{name}"
        with in_our_words():
            found = self._find(repo, checkout, number) if name else None
        if found is None:
            raise NotAcceptable(
                f"{checkout.root} has no pull request here. stagely ls{self._installation.option} shows what there is."
            )
        return repo, found

    def project_id(self, repo: str) -> str:
        """The id of the repository's project. Raises NotAcceptable when it has none."""
        for project in self._api.projects():
            if project.repo_full_name == repo:
                return project.id
        raise NotAcceptable(f"The api has no project for {repo}. Open a pull request first: stagely up PATH")

    def _project(self, name: str) -> ProjectView:
        """By its full name first: the forge's address may have been another one when the project was made."""
        repo = f"{OWNER}/{name}"
        known = [project for project in self._api.projects() if project.repo_full_name == repo]
        if known:
            return known[0]
        return self._api.create_project(name, f"{self._installation.forge_for_vms}/{repo}.git", repo)

    def _push(self, project: ProjectView, repo: str, checkout: Checkout, pull: Pull) -> Pushed:
        self._forge.push(repo, checkout.root, checkout.sha, pull.head.ref)
        was_closed = pull.state != "open"
        if was_closed:
            self._forge.update_pull(repo, pull.number, "open")
        return Pushed(project.id, repo, pull.number, checkout.sha, is_new=was_closed, page=pull.html_url)

    def _find(self, repo: str, checkout: Checkout, number: int | None) -> Pull | None:
        """The pull request of this number; without one the open one of this branch, or the only open one."""
        pulls = self._forge.pulls(repo)
        if number is not None:
            return next((pull for pull in pulls if pull.number == number), None)
        is_open = [pull for pull in pulls if pull.state == "open"]
        same_branch = [pull for pull in is_open if pull.head.ref == _branch(checkout, None)]
        chosen = same_branch or (is_open if len(is_open) == 1 else [])
        if not chosen and is_open:
            numbers = ", ".join(str(pull.number) for pull in is_open)
            raise NotAcceptable(f"{checkout.root} has several open pull requests: {numbers}. Say which one: --pr N")
        return chosen[0] if chosen else None


def living(environments: list[EnvironmentView], number: int) -> EnvironmentView:
    """The environment that a bare number means. Raises NotAcceptable when none or more than one has it."""
    found = [environment for environment in environments if environment.pr == number]
    if len(found) == 1:
        return found[0]
    if not found:
        raise NotAcceptable(f"There is no environment of pull request {number}. `stagely ls` shows those there are.")
    repos = ", ".join(sorted(environment.repo for environment in found))
    raise NotAcceptable(f"Pull request {number} exists in {repos}. Give the path of the repository instead.")


def _branch(checkout: Checkout, number: int | None) -> str:
    """With a number of its own a pull request gets a branch of its own: two may be open from one local branch."""
    return f"{BRANCHES}{checkout.branch}" if number is None else f"{BRANCHES}{checkout.branch}-{number}"
