"""The peers' configurations, each as somebody who knows the program would write it for one core. Pure."""

from __future__ import annotations

from dataclasses import dataclass

_OPEN_FILES = 20_000


@dataclass(frozen=True, slots=True)
class Ports:
    """Where one proxy listens and what stands behind all of them."""

    http: int
    tls: int
    upstream: int
    echo: int
    redis: int


@dataclass(frozen=True, slots=True)
class Files:
    """folder: the proxy's own. pem: key and certificates in one file, which HAProxy wants."""

    folder: str
    certificate: str
    key: str
    pem: str


_NGINX_START = """daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr error;
worker_rlimit_nofile {files};
{modules}
events {{ worker_connections {files}; }}
http {{
  access_log off;
  tcp_nodelay on;
  keepalive_timeout 600s;
  keepalive_requests 1000000000;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
"""


def upstream(folder: str, port: int, big_file: str) -> str:
    """nginx as the origin: 1 KB at /, the same with an answer head that never repeats at /unique/, 1 MB at /big."""
    return (
        _nginx_start(folder)
        + f"""
  sendfile on;
  server {{
    listen {port} backlog=4096;
    allow 127.0.0.0/8;
    deny all;
    location / {{ return 200 "{"x" * 1023}\\n"; }}
    location /unique/ {{ add_header ETag $request_id; return 200 "{"x" * 1023}\\n"; }}
    location = /big {{ alias {big_file}; }}
  }}
}}
"""
    )


def nginx(ports: Ports, files: Files) -> str:
    """A static upstream."""
    return (
        _nginx_start(files.folder)
        + f"""
  upstream origin {{ server 127.0.0.1:{ports.upstream}; keepalive 1024; keepalive_requests 1000000000; }}
  upstream echo {{ server 127.0.0.1:{ports.echo}; }}
  server {{
    {_nginx_listen(ports, files)}
    location /ws {{ {_NGINX_UPGRADE} proxy_pass http://echo; }}
    location / {{ {_NGINX_FIELDS} proxy_set_header Connection ""; proxy_pass http://origin; }}
  }}
}}
"""
    )


def nginx_lua(ports: Ports, files: Files) -> str:
    """The route of every request read from Redis, upstream connections kept per address."""
    modules = "load_module modules/ndk_http_module.so;\nload_module modules/ngx_http_lua_module.so;"
    return (
        _nginx_start(files.folder, modules)
        + f"""
  lua_package_path "/usr/share/lua/5.1/?.lua;;";
  lua_package_cpath "/usr/lib/x86_64-linux-gnu/lua/5.1/?.so;/usr/lib/aarch64-linux-gnu/lua/5.1/?.so;;";
  init_by_lua_block {{ redis = require "nginx.redis"; json = require "cjson"; balancer = require "ngx.balancer" }}
  upstream routed {{
    server 0.0.0.1;
    balancer_by_lua_block {{ assert(balancer.set_current_peer(ngx.ctx.route.ip, ngx.ctx.route.port)) }}
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  map $http_upgrade $connection_field {{ default upgrade; "" ""; }}
  server {{
    {_nginx_listen(ports, files)}
    location / {{
      access_by_lua_block {{
        local connection = redis:new()
        connection:set_timeout(1000)
        if not connection:connect("127.0.0.1", {ports.redis}) then return ngx.exit(503) end
        local record = connection:get("route:" .. ngx.var.host:match("^[^.]+"))
        if not record or record == ngx.null then return ngx.exit(404) end
        connection:set_keepalive(60000, 256)
        local route = json.decode(record)
        if route.status ~= "ready" then return ngx.exit(404) end
        ngx.ctx.route = route
        ngx.req.set_header("X-Stagely-PR", route.pr)
        ngx.req.set_header("X-Stagely-Project", route.project)
        ngx.req.set_header("X-Stagely-Team", route.team)
      }}
      proxy_http_version 1.1;
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection $connection_field;
      proxy_read_timeout 600s;
      proxy_pass http://routed;
    }}
  }}
}}
"""
    )


_NGINX_FIELDS = """proxy_http_version 1.1;
      proxy_set_header Host $host; proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Proto $scheme; proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Stagely-PR 7; proxy_set_header X-Stagely-Project shop; proxy_set_header X-Stagely-Team bench;
     """
_NGINX_UPGRADE = """proxy_http_version 1.1; proxy_set_header Host $host;
      proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; proxy_read_timeout 600s;
     """


def _nginx_start(folder: str, modules: str = "") -> str:
    return _NGINX_START.format(folder=folder, files=_OPEN_FILES, modules=modules)


def _nginx_listen(ports: Ports, files: Files) -> str:
    return (
        f"listen 127.0.0.1:{ports.http} backlog=4096;\n"
        f"    listen 127.0.0.1:{ports.tls} ssl backlog=4096;\n"
        f"    ssl_certificate {files.certificate}; ssl_certificate_key {files.key};\n"
        "    ssl_protocols TLSv1.2 TLSv1.3;"
    )


def haproxy(ports: Ports, files: Files) -> str:
    """A static backend."""
    return f"""global
  nbthread 1
  maxconn 9900
defaults
  mode http
  timeout connect 3s
  timeout client 600s
  timeout server 600s
  timeout tunnel 1h
  http-reuse always
frontend edge
  bind 127.0.0.1:{ports.http} backlog 4096
  bind 127.0.0.1:{ports.tls} backlog 4096 ssl crt {files.pem} alpn http/1.1
  use_backend echo if {{ path_beg /ws }}
  default_backend origin
backend origin
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
  http-request set-header X-Stagely-PR 7
  http-request set-header X-Stagely-Project shop
  http-request set-header X-Stagely-Team bench
  server origin 127.0.0.1:{ports.upstream}
backend echo
  server echo 127.0.0.1:{ports.echo}
"""


def caddy(ports: Ports, files: Files) -> str:
    """A static upstream."""
    routes = f"""  bind 127.0.0.1
  reverse_proxy /ws 127.0.0.1:{ports.echo}
  reverse_proxy 127.0.0.1:{ports.upstream} {{
    header_up X-Stagely-PR 7
    header_up X-Stagely-Project shop
    header_up X-Stagely-Team bench
    transport http {{
      keepalive_idle_conns 1024
      keepalive_idle_conns_per_host 1024
      compression off
    }}
  }}
"""
    return f"""{{
  admin off
  auto_https off
}}
http://:{ports.http} {{
{routes}}}
https://:{ports.tls} {{
  tls {files.certificate} {files.key}
{routes}}}
"""
