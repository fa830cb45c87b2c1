"""A hub on this machine that speaks what huggingface_hub asks for, and keeps what was asked."""

import base64
import hashlib
import json
import re
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from tests import http_server

WRITER, READER = "hf_writer", "hf_reader"
"""Tokens: of a user who may do everything, and of one who may not write and sees no private repositories."""


@dataclass
class Repository:
    """Branches and commits: name -> commit, commit -> file -> content."""

    private: bool = False
    branches: dict = field(default_factory=lambda: {"main": "0" * 40})
    commits: dict = field(default_factory=lambda: {"0" * 40: {}})
    messages: list = field(default_factory=list)

    def commit(self, branch, files, message, removed=()):
        before = self.commits[self.branches[branch]]
        content = {name: was for name, was in before.items() if name not in removed} | files
        sha = hashlib.sha1(repr((branch, sorted(content.items()), len(self.commits))).encode()).hexdigest()
        self.commits[sha] = content
        self.branches[branch] = sha
        self.messages.append(message)
        return sha


class Hub:
    """The stub's repositories by `user/name`, its requests as (method, path), and its large files."""

    def __init__(self):
        self.repositories, self.requests, self.large = {}, [], {}
        self.status, self.address = None, ""

    def add(self, name, files, **options):
        repository = self.repositories.setdefault(name, Repository(**options))
        return repository.commit("main", files, "first")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub = None

    def log_message(self, *_):
        pass

    def answer(self, status=200, body=b"", **headers):
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        for name, value in ({"Content-Length": str(len(content))} | headers).items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def refuse(self, status, code):
        self.answer(status, {"error": code}, X_Error_Code=code, X_Error_Message=code)

    @property
    def token(self):
        return self.headers.get("Authorization", "").removeprefix("Bearer ")

    def repository(self, name):
        found = self.hub.repositories.get(name)
        return None if found is None or (found.private and self.token != WRITER) else found

    def handle_any(self):
        path = unquote(urlsplit(self.path).path)
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.hub.requests.append((self.command, path))
        if self.hub.status is not None and path != "/":
            return self.answer(self.hub.status)
        for pattern, method in ROUTES:
            if found := re.fullmatch(pattern, f"{self.command} {path}"):
                return (
                    method(self, *found.groups(), body)
                    if self.command in ("POST", "PUT")
                    else method(self, *found.groups())
                )
        return self.answer(404)

    do_GET = do_HEAD = do_POST = do_PUT = handle_any  # noqa: N815 - names of http.server

    def found(self, name, revision):
        """The commit of a revision, or None once the refusal was sent."""
        repository = self.repository(name)
        if repository is None:  # the hub does not tell the two apart either
            self.refuse(404 if self.token else 401, "RepoNotFound")
            return None
        sha = repository.branches.get(revision, revision)
        if sha not in repository.commits:
            self.refuse(404, "RevisionNotFound")
            return None
        return sha

    def info(self, name, revision):
        if sha := self.found(name, revision or "main"):
            self.answer(200, {"id": name, "modelId": name, "sha": sha, "siblings": [], "private": False})

    def tree(self, name, revision):
        if sha := self.found(name, revision):
            files = self.hub.repositories[name].commits[sha].items()
            self.answer(
                200,
                [
                    {
                        "type": "file",
                        "path": path,
                        "size": len(content),
                        "oid": hashlib.sha1(content).hexdigest(),
                    }
                    for path, content in files
                ],
            )

    def resolve(self, name, revision, file):
        if sha := self.found(name, revision):
            content = self.hub.repositories[name].commits[sha].get(file)
            if content is None:
                return self.refuse(404, "EntryNotFound")
            etag = f'"{hashlib.sha1(content).hexdigest()}"'
            self.answer(200, content, ETag=etag, X_Repo_Commit=sha)
        return None

    def create(self, body):
        request = json.loads(body)
        name = f"{request.get('organization') or 'ann'}/{request['name']}"
        if self.token != WRITER:
            return self.refuse(403 if self.token else 401, "Forbidden")
        known = name in self.hub.repositories
        self.hub.repositories.setdefault(name, Repository(private=request.get("visibility") == "private"))
        return self.answer(409 if known else 200, {"url": f"{self.hub.address}/{name}", "name": name})

    def branch(self, name, branch, _body):
        repository = self.hub.repositories[name]
        if branch in repository.branches:
            return self.answer(409, {})
        repository.branches[branch] = repository.branches["main"]
        return self.answer(200, {})

    def validate(self, _body):
        self.answer(200, {"errors": [], "warnings": []})

    def preupload(self, _name, _revision, body):
        files = [
            {
                "path": file["path"],
                "uploadMode": "lfs" if file["path"].endswith((".safetensors", ".png")) else "regular",
                "shouldIgnore": False,
                "oid": None,
            }
            for file in json.loads(body)["files"]
        ]
        self.answer(200, {"files": files})

    def batch(self, _name, body):
        objects = [
            {**file, "actions": {"upload": {"href": f"{self.hub.address}/large/{file['oid']}", "header": {}}}}
            for file in json.loads(body)["objects"]
        ]
        self.answer(200, {"transfer": "basic", "objects": objects})

    def large(self, oid, body):
        self.hub.large[oid] = body
        self.answer(200)

    def commit(self, name, branch, body):
        rows, files, removed, message = map(json.loads, body.splitlines()), {}, [], ""
        for row in rows:
            value = row["value"]
            if row["key"] == "header":
                message = value["summary"]
            elif row["key"] == "deletedFile":
                removed.append(value["path"])
            elif row["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            else:
                files[value["path"]] = self.hub.large[value["oid"]]
        sha = self.hub.repositories[name].commit(branch, files, message, removed)
        self.answer(200, {"commitUrl": f"{self.hub.address}/{name}/commit/{sha}", "commitOid": sha})


REPOSITORY = r"([\w.-]+/[\w.-]+)"
ROUTES = [
    (r"(?:HEAD|GET) /", Handler.answer),
    (rf"GET /api/models/{REPOSITORY}/revision/(.+)", Handler.info),
    (rf"GET /api/models/{REPOSITORY}()", Handler.info),
    (rf"GET /api/models/{REPOSITORY}/tree/([^/]+)", Handler.tree),
    (rf"(?:HEAD|GET) /{REPOSITORY}/resolve/([^/]+)/(.+)", Handler.resolve),
    (r"POST /api/repos/create", Handler.create),
    (rf"POST /api/models/{REPOSITORY}/branch/(.+)", Handler.branch),
    (r"POST /api/validate-yaml", Handler.validate),
    (rf"POST /api/models/{REPOSITORY}/preupload/(.+)", Handler.preupload),
    (rf"POST /{REPOSITORY}\.git/info/lfs/objects/batch", Handler.batch),
    (r"PUT /large/(\w+)", Handler.large),
    (rf"POST /api/models/{REPOSITORY}/commit/(.+)", Handler.commit),
]


@contextmanager
def serving():
    """A stub that runs in a thread."""
    hub = Hub()
    with http_server.serving(type("Handler", (Handler,), {"hub": hub})) as hub.address:
        yield hub
