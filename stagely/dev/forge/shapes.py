"""The forge's rows as GitHub's JSON. Every shape is checked in tests against GitHub's OpenAPI description.

What the forge does not have (labels, milestones, stars) is there and empty: clients of GitHub expect the fields.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from stagely.dev.forge.access import APP_PERMISSIONS
from stagely.dev.forge.config import OWNER
from stagely.dev.forge.git import DEFAULT_BRANCH, Entry
from stagely.dev.forge.rows import Comment, Grant, Pull, Repository, Status

Json = dict[str, Any]  # Any: a JSON object of GitHub's, hundreds of fields.

_USER_URLS = {
    "followers_url": "/followers",
    "following_url": "/following{/other_user}",
    "gists_url": "/gists{/gist_id}",
    "starred_url": "/starred{/owner}{/repo}",
    "subscriptions_url": "/subscriptions",
    "organizations_url": "/orgs",
    "repos_url": "/repos",
    "events_url": "/events{/privacy}",
    "received_events_url": "/received_events",
}
_REPOSITORY_URLS = {
    "archive_url": "/{archive_format}{/ref}",
    "assignees_url": "/assignees{/user}",
    "blobs_url": "/git/blobs{/sha}",
    "branches_url": "/branches{/branch}",
    "collaborators_url": "/collaborators{/collaborator}",
    "comments_url": "/comments{/number}",
    "commits_url": "/commits{/sha}",
    "compare_url": "/compare/{base}...{head}",
    "contents_url": "/contents/{+path}",
    "contributors_url": "/contributors",
    "deployments_url": "/deployments",
    "downloads_url": "/downloads",
    "events_url": "/events",
    "forks_url": "/forks",
    "git_commits_url": "/git/commits{/sha}",
    "git_refs_url": "/git/refs{/sha}",
    "git_tags_url": "/git/tags{/sha}",
    "hooks_url": "/hooks",
    "issue_comment_url": "/issues/comments{/number}",
    "issue_events_url": "/issues/events{/number}",
    "issues_url": "/issues{/number}",
    "keys_url": "/keys{/key_id}",
    "labels_url": "/labels{/name}",
    "languages_url": "/languages",
    "merges_url": "/merges",
    "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}",
    "pulls_url": "/pulls{/number}",
    "releases_url": "/releases{/id}",
    "stargazers_url": "/stargazers",
    "statuses_url": "/statuses/{sha}",
    "subscribers_url": "/subscribers",
    "subscription_url": "/subscription",
    "tags_url": "/tags",
    "teams_url": "/teams",
    "trees_url": "/git/trees{/sha}",
}
_EMPTY_REPOSITORY: Json = {
    "description": None,
    "homepage": None,
    "language": None,
    "license": None,
    "mirror_url": None,
    "fork": False,
    "private": True,
    "visibility": "private",
    "archived": False,
    "disabled": False,
    "is_template": False,
    "allow_forking": False,
    "web_commit_signoff_required": False,
    "has_issues": True,
    "has_projects": False,
    "has_downloads": False,
    "has_wiki": False,
    "has_pages": False,
    "has_discussions": False,
    "topics": [],
    "size": 0,
    **dict.fromkeys(
        ("forks", "forks_count", "stargazers_count", "watchers", "watchers_count", "open_issues", "open_issues_count"),
        0,
    ),
}
_EMPTY_PULL: Json = {
    "locked": False,
    "active_lock_reason": None,
    "labels": [],
    "milestone": None,
    "assignee": None,
    "assignees": [],
    "requested_reviewers": [],
    "requested_teams": [],
    "auto_merge": None,
    "author_association": "OWNER",
    "merged": False,
    "merged_at": None,
    "merged_by": None,
    "merge_commit_sha": None,
    "mergeable": None,
    "mergeable_state": "unknown",
    "rebaseable": None,
    "review_comments": 0,
    "maintainer_can_modify": False,
}


@dataclass(frozen=True, slots=True)
class Shapes:
    """`url` is the forge as people and API clients reach it, `clone_url` as git does."""

    url: str
    clone_url: str
    app_id: int

    def person(self) -> Json:
        return self._user(OWNER, 1, "User")

    def bot(self) -> Json:
        return self._user("stagely[bot]", 2, "Bot")

    def repository(self, repository: Repository) -> Json:
        html, api = f"{self.url}/{repository.full_name}", self._api(repository)
        made = _time(repository.created_at)
        return {
            **_EMPTY_REPOSITORY,
            **{name: api + path for name, path in _REPOSITORY_URLS.items()},
            "id": repository.id,
            "node_id": _node("R", repository.id),
            "name": repository.name,
            "full_name": repository.full_name,
            "owner": self.person(),
            "html_url": html,
            "url": api,
            "clone_url": f"{self.clone_url}/{repository.full_name}.git",
            "git_url": f"{self.clone_url}/{repository.full_name}.git",
            "ssh_url": f"{self.clone_url}/{repository.full_name}.git",
            "svn_url": html,
            "default_branch": DEFAULT_BRANCH,
            "created_at": made,
            "updated_at": made,
            "pushed_at": made,
        }

    def full_repository(self, repository: Repository) -> Json:
        return {**self.repository(repository), "network_count": 0, "subscribers_count": 0}

    def pull(self, repository: Repository, pull: Pull, comments: int) -> Json:
        return {
            **_EMPTY_PULL,
            **self._pull_urls(repository, pull),
            "id": pull.id,
            "node_id": _node("PR", pull.id),
            "number": pull.number,
            "state": pull.state,
            "title": pull.title,
            "body": pull.body or None,
            "draft": pull.draft,
            "user": self.person(),
            "head": self._end(repository, pull.head_ref, pull.head_sha),
            "base": self._end(repository, pull.base_ref, pull.base_sha),
            "created_at": _time(pull.created_at),
            "updated_at": _time(pull.updated_at),
            "closed_at": _time(pull.closed_at) if pull.closed_at else None,
            "comments": comments,
            "commits": pull.commits,
            "additions": pull.additions,
            "deletions": pull.deletions,
            "changed_files": pull.changed_files,
        }

    def pull_event(
        self, action: str, repository: Repository, pull: Pull, comments: int, installation: int, before: str = ""
    ) -> Json:
        """The body of webhook `pull_request`; `before` is the old head of a `synchronize`."""
        moved = {"before": before, "after": pull.head_sha} if before else {}
        return {
            "action": action,
            "number": pull.number,
            **moved,
            "pull_request": self.pull(repository, pull, comments),
            "repository": self.repository(repository),
            "installation": {"id": installation, "node_id": _node("I", installation)},
            "sender": self.person(),
        }

    def comment(self, repository: Repository, comment: Comment) -> Json:
        html = f"{self.url}/{repository.full_name}/pull/{comment.number}"
        return {
            "id": comment.id,
            "node_id": _node("IC", comment.id),
            "url": f"{self._api(repository)}/issues/comments/{comment.id}",
            "html_url": f"{html}#issuecomment-{comment.id}",
            "issue_url": f"{self._api(repository)}/issues/{comment.number}",
            "user": self.bot() if comment.by_app else self.person(),
            "body": comment.body,
            "author_association": "NONE" if comment.by_app else "OWNER",
            "performed_via_github_app": self.app() if comment.by_app else None,
            "created_at": _time(comment.created_at),
            "updated_at": _time(comment.updated_at),
        }

    def status(self, repository: Repository, status: Status) -> Json:
        creator = self.bot() if status.by_app else self.person()
        return {
            "id": status.id,
            "node_id": _node("SC", status.id),
            "url": f"{self._api(repository)}/statuses/{status.sha}",
            "avatar_url": creator["avatar_url"],
            "state": status.state,
            "context": status.context,
            "description": status.description,
            "target_url": status.target_url,
            "creator": creator,
            "created_at": _time(status.created_at),
            "updated_at": _time(status.created_at),
        }

    def app(self) -> Json:
        return {
            "id": self.app_id,
            "slug": "stagely",
            "node_id": _node("A", self.app_id),
            "owner": self.person(),
            "name": "Stagely",
            "description": "A machine of its own for every pull request.",
            "external_url": self.url,
            "html_url": f"{self.url}/apps/stagely",
            "created_at": _time(0),
            "updated_at": _time(0),
            "permissions": dict(APP_PERMISSIONS),
            "events": ["pull_request"],
        }

    def installation(self, installation: int) -> Json:
        return {
            "id": installation,
            "account": self.person(),
            "repository_selection": "all",
            "access_tokens_url": f"{self.url}/app/installations/{installation}/access_tokens",
            "repositories_url": f"{self.url}/installation/repositories",
            "html_url": f"{self.url}/settings/installations/{installation}",
            "app_id": self.app_id,
            "app_slug": "stagely",
            "target_id": 1,
            "target_type": "User",
            "permissions": dict(APP_PERMISSIONS),
            "events": ["pull_request"],
            "created_at": _time(0),
            "updated_at": _time(0),
            "single_file_name": None,
            "suspended_by": None,
            "suspended_at": None,
        }

    def token(self, token: str, grant: Grant, repositories: list[Repository] | None) -> Json:
        answer: Json = {"token": token, "expires_at": _time(grant.expires_at), "permissions": grant.permissions}
        if repositories is None:
            return {**answer, "repository_selection": "all"}
        chosen = [self.repository(r) for r in repositories]
        return {**answer, "repository_selection": "selected", "repositories": chosen}

    def file(self, repository: Repository, sha: str, entry: Entry, content: bytes) -> Json:
        """A file of a commit. Source: GitHub docs, "Get repository content": above 1 MB no content comes along."""
        is_large = entry.size > 1024 * 1024
        text = "" if is_large else base64.encodebytes(content).decode()
        encoding = "none" if is_large else "base64"
        return {**self.listed(repository, sha, entry), "type": "file", "encoding": encoding, "content": text}

    def symlink(self, repository: Repository, sha: str, entry: Entry, target: str) -> Json:
        return {**self.listed(repository, sha, entry), "target": target}

    def listed(self, repository: Repository, sha: str, entry: Entry) -> Json:
        """One entry of a folder."""
        kind = {"blob": "file", "tree": "dir", "commit": "submodule"}.get(entry.kind, entry.kind)
        api = f"{self._api(repository)}/contents/{entry.path}?ref={sha}"
        html = f"{self.url}/{repository.full_name}/blob/{sha}/{entry.path}"
        git = f"{self._api(repository)}/git/{entry.kind}s/{entry.sha}"
        return {
            "type": kind,
            "name": entry.path.rpartition("/")[2],
            "path": entry.path,
            "sha": entry.sha,
            "size": entry.size,
            "url": api,
            "git_url": git,
            "html_url": html,
            "download_url": None,
            "_links": {"self": api, "git": git, "html": html},
        }

    def permission(self) -> Json:
        """What the owner may do: everything."""
        return {"permission": "admin", "role_name": "admin", "user": {**self.person(), "role_name": "admin"}}

    def _user(self, login: str, number: int, kind: str) -> Json:
        api = f"{self.url}/users/{login}"
        return {
            "login": login,
            "id": number,
            "node_id": _node("U", number),
            "avatar_url": f"{self.url}/favicon.ico",
            "gravatar_id": "",
            "url": api,
            "html_url": f"{self.url}/{login}",
            **{name: api + path for name, path in _USER_URLS.items()},
            "type": kind,
            "site_admin": False,
        }

    def _api(self, repository: Repository) -> str:
        return f"{self.url}/repos/{repository.full_name}"

    def _end(self, repository: Repository, ref: str, sha: str) -> Json:
        return {
            "label": f"{repository.owner}:{ref}",
            "ref": ref,
            "sha": sha,
            "user": self.person(),
            "repo": self.repository(repository),
        }

    def _pull_urls(self, repository: Repository, pull: Pull) -> Json:
        html, api = f"{self.url}/{repository.full_name}/pull/{pull.number}", self._api(repository)
        urls = {
            "url": f"{api}/pulls/{pull.number}",
            "html_url": html,
            "diff_url": f"{html}.diff",
            "patch_url": f"{html}.patch",
            "issue_url": f"{api}/issues/{pull.number}",
            "commits_url": f"{api}/pulls/{pull.number}/commits",
            "review_comments_url": f"{api}/pulls/{pull.number}/comments",
            "review_comment_url": f"{api}/pulls/comments{{/number}}",
            "comments_url": f"{api}/issues/{pull.number}/comments",
            "statuses_url": f"{api}/statuses/{pull.head_sha}",
        }
        names = ("html", "issue", "comments", "review_comments", "review_comment", "commits", "statuses")
        links = {name: {"href": urls[f"{name}_url"]} for name in names}
        return {**urls, "_links": {"self": {"href": urls["url"]}, **links}}


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _node(kind: str, number: int) -> str:
    return f"{kind}_{base64.urlsafe_b64encode(str(number).encode()).decode().rstrip('=')}"
