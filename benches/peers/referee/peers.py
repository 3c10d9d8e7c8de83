"""The proxies, each configured for the same job.

The job: TLS 1.3 with an ECDSA P-256 certificate, ALPN h2 and http/1.1, a keep-alive HTTP/1.1 backend, the
security headers in `Job.headers` on every answer, Server and X-Powered-By removed as far as the program can,
X-Forwarded-For/-Host/-Proto/-Port set, only GET, HEAD and POST, a denied prefix, and one JSON line per request
in a file. One worker. Everything that buffers log lines does so.
"""

import json
import os
import re
import shutil
import subprocess

from processes import PROXY_CPU, start

HOST = "www.example.org"

# What the peers add when Ravelin is not there to ask. Otherwise they get the very fields that Ravelin adds.
HEADERS = {
    "X-Frame-Options": "SAMEORIGIN",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "strict-origin-when-cross-origin",
    "Strict-Transport-Security": "max-age=31536000",
    "Content-Security-Policy": "frame-ancestors 'self'; base-uri 'self'",
    "Permissions-Policy": "browsing-topics=(), bluetooth=(), hid=(), idle-detection=(), midi=(), serial=(), usb=()",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Job:
    """What all peers of a run share."""

    def __init__(self, directory, backend, programs):
        self.directory, self.backend, self.programs = directory, backend, programs
        self.chain, self.key, self.both = (f"{directory}/{name}" for name in ("chain.pem", "key.pem", "both.pem"))
        self.headers = dict(HEADERS)
        self.make_certificate()

    def make_certificate(self):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30",
             "-subj", f"/CN={HOST}", "-addext", f"subjectAltName=DNS:{HOST},IP:127.0.0.1",
             "-keyout", self.key, "-out", self.chain],
            check=True, capture_output=True)
        with open(self.both, "w") as both:
            for path in (self.chain, self.key):
                with open(path) as part:
                    both.write(part.read())


class Peer:
    """One proxy: how it is found, configured and started."""

    name = ""
    program = ""
    # Statuses that say no to the denied prefix and to a forbidden method.
    denied, forbidden = {403}, {405}
    # What reaches the backend about the client.
    forwards = ("x-forwarded-for", "x-forwarded-host", "x-forwarded-proto", "x-forwarded-port")
    # The program cannot be kept from sending a Server field of its own.
    server_stays = False
    notes = ""

    def __init__(self, job, port):
        self.job, self.port = job, port
        self.path = job.programs[self.name] if self.name in job.programs else shutil.which(self.program)
        self.home = f"{job.directory}/{self.name}"
        self.log = f"{self.home}/access.log"

    def version(self):
        out = subprocess.run([self.path, *self.version_flags], capture_output=True, text=True)
        found = re.search(r"\d+\.\d+\.\d+", out.stdout + out.stderr)
        return found.group(0) if found else "?"

    version_flags = ["--version"]

    def start(self, quota):
        """Starts it fresh, with an empty log."""
        os.makedirs(self.home, exist_ok=True)
        open(self.log, "w").close()
        with open(f"{self.home}/{self.file}", "w") as file:
            file.write(self.configuration())
        with open(self.log if self.logs_to_stdout else f"{self.home}/stdout", "a") as out, \
                open(f"{self.home}/stderr", "w") as err:
            return start(self.command(), PROXY_CPU, quota, stdout=out, stderr=err,
                         env={**os.environ, **self.environment()}, cwd=self.home)

    file = "conf"
    logs_to_stdout = False

    def environment(self):
        return {}


class Ravelin(Peer):
    name = program = "ravelin"
    file = "ravelin.toml"
    # What `grow` puts before the site that is asked, and into it.
    before, inside = "", ""
    # The grammar has no deny list yet: the prefix is refused by a path rule that leaves it no useful method.
    denied = {403, 404, 405}

    def command(self):
        return [self.path, "run", "--config", f"{self.home}/{self.file}"]

    def configuration(self):
        return f"""
[[listen]]
url = "https://127.0.0.1:{self.port}"
certificates = [{{ chain = "{self.job.chain}", key = "{self.job.key}" }}]

[log]
access = "json"
file = "{self.log}"
level = "warn"

[limits]
connections = 12000
connections_per_client = 12000
workers = 1

[shutdown]
drain_delay = "0 s"
grace = "1 s"
{self.before}
[[site]]
hosts = ["{HOST}"]
upstream = "http://127.0.0.1:{self.job.backend}"
preset = "typo3"
methods = ["GET", "HEAD", "POST"]

[site.upstream_pool]
idle_per_worker = 512

[[site.path]]
path = "/deny"
methods = ["OPTIONS"]
{self.inside}
"""


class Other(Ravelin):
    name = "other"
    notes = "another build of Ravelin, in the same rounds"


class Nginx(Peer):
    name = program = "nginx"
    version_flags = ["-v"]
    server_stays = True
    file = "nginx.conf"
    notes = "log lines buffered (64 KiB, 1 s); proxy_request_buffering off; no temporary files"

    def command(self):
        return [self.path, "-p", self.home, "-c", f"{self.home}/{self.file}", "-e", f"{self.home}/error.log"]

    def configuration(self):
        quoted = {name: value.replace('"', '\\"') for name, value in self.job.headers.items()}
        add = "\n".join(f'    add_header {n} "{v}" always;' for n, v in quoted.items())
        hide = "\n".join(f"    proxy_hide_header {n};" for n in (*quoted, "X-Powered-By"))
        user = "user root;" if os.geteuid() == 0 else ""
        return f"""
{user}
daemon off;
worker_processes 1;
pid {self.home}/pid;
error_log {self.home}/error.log warn;
events {{ worker_connections 19000; }}
http {{
  log_format line escape=json '{{"time":"$time_iso8601","client":"$remote_addr","method":"$request_method",'
    '"host":"$host","path":"$request_uri","protocol":"$server_protocol","status":$status,"bytes":$body_bytes_sent,'
    '"seconds":$request_time,"origin":"$upstream_addr","referer":"$http_referer","agent":"$http_user_agent",'
    '"tls":"$ssl_protocol","id":"$request_id"}}';
  access_log {self.log} line buffer=64k flush=1s;
  server_tokens off;
  keepalive_requests 1000000000;
  keepalive_timeout 75s;
  client_max_body_size 256m;
  client_body_temp_path {self.home}/body; proxy_temp_path {self.home}/proxy; fastcgi_temp_path {self.home}/fastcgi;
  uwsgi_temp_path {self.home}/uwsgi; scgi_temp_path {self.home}/scgi;
  upstream origin {{
    server 127.0.0.1:{self.job.backend};
    keepalive 512;
    keepalive_requests 1000000000;
  }}
  server {{
    listen 127.0.0.1:{self.port} ssl http2 backlog=4096;
    server_name {HOST};
    ssl_certificate {self.job.chain};
    ssl_certificate_key {self.job.key};
    ssl_protocols TLSv1.2 TLSv1.3;
{add}
    if ($request_method !~ ^(GET|HEAD|POST)$) {{ return 405; }}
    location /deny/ {{ return 403; }}
    location / {{
      proxy_pass http://origin;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_set_header Host $host;
      proxy_set_header X-Forwarded-For $remote_addr;
      proxy_set_header X-Forwarded-Host $host;
      proxy_set_header X-Forwarded-Proto $scheme;
      proxy_set_header X-Forwarded-Port $server_port;
      proxy_request_buffering off;
      proxy_max_temp_file_size 0;
      proxy_buffer_size 16k;
      proxy_buffers 8 64k;
      proxy_busy_buffers_size 128k;
{hide}
    }}
  }}
}}
"""


class Haproxy(Peer):
    name = program = "haproxy"
    version_flags = ["-v"]
    file = "haproxy.cfg"
    logs_to_stdout = True
    notes = "its log goes to standard output, which is the file: one write per line, it cannot buffer"

    def command(self):
        return [self.path, "-db", "-f", f"{self.home}/{self.file}"]

    def configuration(self):
        quoted = {n: v.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%") for n, v in self.job.headers.items()}
        add = "\n".join(f'  http-after-response set-header {n} "{v}"' for n, v in quoted.items())
        return f"""
global
  nbthread 1
  maxconn 8000
  log stdout format raw local0

defaults
  mode http
  log global
  timeout client 75s
  timeout server 75s
  timeout connect 5s
  timeout http-keep-alive 75s
  option http-keep-alive
  http-reuse always

frontend front
  bind 127.0.0.1:{self.port} ssl crt {self.job.both} alpn h2,http/1.1 ssl-min-ver TLSv1.2 backlog 4096
  log-format '{{"time":"%tr","client":"%ci","method":"%HM","host":"%[capture.req.hdr(0)]","path":"%HU","protocol":"%HV","status":%ST,"bytes":%B,"milliseconds":%Ta,"origin":"%si:%sp","referer":"%[capture.req.hdr(1)]","agent":"%[capture.req.hdr(2)]","tls":"%sslv","id":"%rt"}}'
  http-request capture req.hdr(Host) len 64
  http-request capture req.hdr(Referer) len 64
  http-request capture req.hdr(User-Agent) len 64
  http-request deny deny_status 405 unless {{ method GET HEAD POST }}
  http-request deny deny_status 403 if {{ path_beg /deny/ }}
  http-request set-header X-Forwarded-For %[src]
  http-request set-header X-Forwarded-Host %[req.hdr(Host)]
  http-request set-header X-Forwarded-Proto https
  http-request set-header X-Forwarded-Port %[dst_port]
  http-after-response del-header Server
  http-after-response del-header X-Powered-By
{add}
  default_backend origin

backend origin
  server origin 127.0.0.1:{self.job.backend} pool-max-conn -1
"""


class Caddy(Peer):
    name = program = "caddy"
    version_flags = ["version"]
    file = "Caddyfile"

    def command(self):
        return [self.path, "run", "--config", f"{self.home}/{self.file}", "--adapter", "caddyfile"]

    def environment(self):
        return {"GOMAXPROCS": "1", "HOME": self.home, "XDG_DATA_HOME": self.home, "XDG_CONFIG_HOME": self.home}

    def configuration(self):
        add = "\n".join(f"    {n} `{v}`" for n, v in self.job.headers.items())
        return f"""
{{
  admin off
  auto_https off
  persist_config off
  default_sni {HOST}
  fallback_sni {HOST}
  log default {{
    level WARN
    exclude http.log.access
  }}
  servers {{
    protocols h1 h2
  }}
}}
https://:{self.port} {{
  bind 127.0.0.1
  tls {self.job.chain} {self.job.key}
  log {{
    output file {self.log} {{
      roll_disabled
    }}
    format json
  }}
  header {{
{add}
    -Server
    -X-Powered-By
    defer
  }}
  @method not method GET HEAD POST
  respond @method 405
  @deny path /deny/*
  respond @deny 403
  reverse_proxy 127.0.0.1:{self.job.backend} {{
    header_up X-Forwarded-Port {self.port}
    transport http {{
      keepalive 75s
      keepalive_idle_conns 512
      keepalive_idle_conns_per_host 512
      compression off
    }}
  }}
}}
"""


class Envoy(Peer):
    name = program = "envoy"
    file = "envoy.json"
    notes = "log lines buffered by Envoy itself, written by a thread of its own"

    def command(self):
        return [self.path, "-c", f"{self.home}/{self.file}", "--concurrency", "1", "--disable-hot-restart",
                "-l", "error"]

    def configuration(self):
        add = [{"header": {"key": n, "value": v.replace("%", "%%")}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
               for n, v in self.job.headers.items()]
        forward = [{"header": {"key": "X-Forwarded-Host", "value": "%REQ(:AUTHORITY)%"},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"},
                   {"header": {"key": "X-Forwarded-Port", "value": str(self.port)},
                    "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}]
        methods = {"name": ":method", "invert_match": True,
                   "string_match": {"safe_regex": {"regex": "GET|HEAD|POST"}}}
        routes = [
            {"match": {"prefix": "/", "headers": [methods]}, "direct_response": {"status": 405}},
            {"match": {"prefix": "/deny/"}, "direct_response": {"status": 403}},
            {"match": {"prefix": "/"}, "route": {"cluster": "origin", "timeout": "0s"}},
        ]
        line = {"time": "%START_TIME%", "client": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%", "method": "%REQ(:METHOD)%",
                "host": "%REQ(:AUTHORITY)%", "path": "%REQ(:PATH)%", "protocol": "%PROTOCOL%",
                "status": "%RESPONSE_CODE%", "bytes": "%BYTES_SENT%", "milliseconds": "%DURATION%",
                "origin": "%UPSTREAM_HOST%", "referer": "%REQ(REFERER)%", "agent": "%REQ(USER-AGENT)%",
                "tls": "%DOWNSTREAM_TLS_VERSION%", "id": "%REQ(X-REQUEST-ID)%"}
        types = "type.googleapis.com/envoy.extensions."
        manager = {
            "@type": types + "filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "front", "codec_type": "AUTO", "use_remote_address": True,
            "server_header_transformation": "PASS_THROUGH",
            "route_config": {
                "virtual_hosts": [{"name": "site", "domains": ["*"], "routes": routes}],
                "response_headers_to_add": add, "response_headers_to_remove": ["server", "x-powered-by"],
                "request_headers_to_add": forward},
            "http_filters": [{"name": "envoy.filters.http.router", "typed_config": {
                "@type": types + "filters.http.router.v3.Router", "suppress_envoy_headers": True}}],
            "access_log": [{"name": "file", "typed_config": {
                "@type": types + "access_loggers.file.v3.FileAccessLog", "path": self.log,
                "log_format": {"json_format": line}}}],
        }
        certificate = {"certificate_chain": {"filename": self.job.chain}, "private_key": {"filename": self.job.key}}
        tls = {"@type": types + "transport_sockets.tls.v3.DownstreamTlsContext",
               "common_tls_context": {"alpn_protocols": ["h2", "http/1.1"], "tls_certificates": [certificate],
                                      "tls_params": {"tls_maximum_protocol_version": "TLSv1_3",
                                                     "ecdh_curves": ["X25519MLKEM768", "X25519", "P-256"]}}}
        listener = {
            "name": "front", "address": address(self.port),
            "filter_chains": [{
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
                "filters": [{"name": "envoy.filters.network.http_connection_manager", "typed_config": manager}]}]}
        unlimited = {"priority": "DEFAULT", "max_connections": 20000, "max_pending_requests": 20000,
                     "max_requests": 20000, "max_retries": 3}
        cluster = {
            "name": "origin", "type": "STATIC", "connect_timeout": "5s",
            "circuit_breakers": {"thresholds": [unlimited]},
            "load_assignment": {"cluster_name": "origin", "endpoints": [
                {"lb_endpoints": [{"endpoint": {"address": address(self.job.backend)}}]}]}}
        return json.dumps({"static_resources": {"listeners": [listener], "clusters": [cluster]}}, indent=1)


def address(port):
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}


class Apache(Peer):
    name, program = "apache", "apache2"
    version_flags = ["-v"]
    server_stays = True
    file = "apache.conf"
    notes = "event MPM, BufferedLogs on; `Server: Apache` cannot be removed"

    def command(self):
        return [self.path, "-D", "FOREGROUND", "-f", f"{self.home}/{self.file}"]

    def configuration(self):
        modules = ("mpm_event authz_core headers rewrite ssl http2 proxy proxy_http log_config unixd "
                   "socache_shmcb").split()
        built_in = subprocess.run([self.path, "-l"], capture_output=True, text=True).stdout
        load = "\n".join(f"LoadModule {m}_module /usr/lib/apache2/modules/mod_{m}.so"
                         for m in modules if f"mod_{m}.c" not in built_in)
        add = "\n".join(f'  Header always set {n} "{v}"\n  Header onsuccess unset {n}'
                        for n, v in self.job.headers.items())
        user = "User www-data\nGroup www-data" if os.geteuid() == 0 else ""
        return f"""
{load}
{user}
ServerName {HOST}
ServerRoot {self.home}
DefaultRuntimeDir {self.home}
PidFile {self.home}/pid
ErrorLog {self.home}/error.log
LogLevel error
ServerTokens Prod
TraceEnable off
Listen 127.0.0.1:{self.port}
StartServers 1
ServerLimit 16
ThreadsPerChild 64
MaxRequestWorkers 1024
AsyncRequestWorkerFactor 16
KeepAliveTimeout 75
MaxKeepAliveRequests 0
BufferedLogs On
LogFormat "{{\\"time\\":\\"%{{%FT%TZ}}t\\",\\"client\\":\\"%a\\",\\"method\\":\\"%m\\",\\"host\\":\\"%{{Host}}i\\",\\"path\\":\\"%U\\",\\"protocol\\":\\"%H\\",\\"status\\":%>s,\\"bytes\\":%O,\\"microseconds\\":%D,\\"referer\\":\\"%{{Referer}}i\\",\\"agent\\":\\"%{{User-Agent}}i\\"}}" line
<VirtualHost 127.0.0.1:{self.port}>
  ServerName {HOST}
  CustomLog {self.log} line
  Protocols h2 http/1.1
  SSLEngine on
  SSLCertificateFile {self.job.chain}
  SSLCertificateKeyFile {self.job.key}
  ProxyPreserveHost On
{add}
  Header always unset X-Powered-By
  Header onsuccess unset X-Powered-By
  RequestHeader set X-Forwarded-Proto https
  RequestHeader set X-Forwarded-Port {self.port}
  RewriteEngine On
  RewriteCond %{{REQUEST_METHOD}} !^(GET|HEAD|POST)$
  RewriteRule ^ - [R=405,L]
  RewriteRule ^/deny/ - [F]
  ProxyPass / http://127.0.0.1:{self.job.backend}/ keepalive=On
</VirtualHost>
"""


class H2o(Peer):
    name = program = "h2o"
    file = "h2o.conf"
    # Its configuration has no way to refuse a method.
    forbidden = None
    # Nor can it set request fields from what it knows.
    forwards = ("x-forwarded-for", "x-forwarded-proto")
    server_stays = True
    notes = "does less: methods are not restricted, no X-Forwarded-Host and -Port; its configuration has no way"

    def command(self):
        return [self.path, "-m", "worker", "-c", f"{self.home}/{self.file}"]

    def configuration(self):
        add = "\n".join(f"header.set: {json.dumps(f'{n}: {v}')}" for n, v in self.job.headers.items())
        line = ('{"time":"%{%FT%TZ}t","client":"%h","method":"%m","host":"%{host}i","path":"%U","protocol":"%H",'
                '"status":%s,"bytes":%b,"seconds":"%{request-total-time}x","referer":"%{referer}i",'
                '"agent":"%{user-agent}i"}')
        user = "user: root" if os.geteuid() == 0 else ""
        return f"""
{user}
num-threads: 1
max-connections: 9000
http1-request-timeout: 75
http2-idle-timeout: 75
listen:
  host: 127.0.0.1
  port: {self.port}
  ssl:
    certificate-file: {self.job.chain}
    key-file: {self.job.key}
    minimum-version: TLSv1.2
    ocsp-update-interval: 0
access-log:
  path: {self.log}
  format: {json.dumps(line)}
  escape: json
error-log: {self.home}/error.log
server-name: ""
proxy.preserve-host: ON
proxy.timeout.keepalive: 60000
header.unset: X-Powered-By
{add}
hosts:
  "{HOST}":
    paths:
      "/deny/":
        mruby.handler: |
          Proc.new {{|env| [403, {{}}, []] }}
      "/":
        proxy.reverse.url: "http://127.0.0.1:{self.job.backend}/"
"""


class Pingora(Peer):
    name = program = "pingora"
    file = "job.json"
    notes = "a small program on the framework (peers/pingora), BoringSSL, mimalloc; log lines buffered (64 KiB, 1 s)"

    def command(self):
        return [self.path, f"{self.home}/{self.file}"]

    def version(self):
        with open(f"{os.path.dirname(__file__)}/../pingora/Cargo.lock") as lock:
            found = re.search(r'name = "pingora"\nversion = "([^"]+)"', lock.read())
        return found.group(1) if found else "?"

    def configuration(self):
        return json.dumps({
            "port": self.port, "origin": self.job.backend, "chain": self.job.chain, "key": self.job.key,
            "log": self.log, "headers": self.job.headers})


ALL = {peer.name: peer for peer in (Ravelin, Nginx, Haproxy, Caddy, Envoy, Apache, H2o, Pingora, Other)}
DEFAULT = ["ravelin", "nginx", "haproxy", "caddy", "envoy"]
# Who else runs by default, if it is here: the ones that a goal of that kind of work names.
RIVALS = {"b": ["h2o"], "d": ["pingora"], "d+": ["pingora"]}
