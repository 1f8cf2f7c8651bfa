//! What stands between the generator and the upstream?
//!
//! Every way is a process of its own, started once, on a loopback port of its own, with the same number of threads. Before
//! anything is measured, each gateway has to refuse what it must refuse: enforcement that is off costs nothing.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::client::Connection;
use crate::client::judge;
use crate::measure::audit::Tally;
use crate::measure::load::Towards;
use crate::measure::rounds::Programs;
use crate::messages::Ask;
use crate::messages::Era;
use crate::messages::Expected;
use crate::messages::Target;
use crate::process::Running;
use crate::stand::Key;
use crate::stand::free_address;
use crate::stand::lasting_address;

/// One way to the upstream.
pub(super) struct Way {
    pub(super) name: &'static str,
    pub(super) label: &'static str,
    pub(super) what: &'static str,
    pub(super) towards: Towards,
    pub(super) process: Running,
    pub(super) tally: Option<Tally>,
}

/// All ways, and what was left out.
pub(super) struct Stage {
    pub(super) ways: Vec<Way>,
    pub(super) absent: Vec<String>,
    pub(super) directory: PathBuf,
    key: Key,
    threads: usize,
}

/// Name of the yardstick among the ways.
pub(super) const BARE: &str = "bare";
/// Name of the way that the targets are about.
pub(super) const FULL: &str = "full";

/// How a gateway is configured.
struct Gateway {
    name: &'static str,
    label: &'static str,
    what: &'static str,
    has_policy: bool,
    level: &'static str,
}

const GATEWAYS: [Gateway; 3] = [
    Gateway {
        name: "open",
        label: "Portcullis, no policy",
        what: "no key, no rules; strict parse, `written` record, metrics",
        has_policy: false,
        level: "written",
    },
    Gateway {
        name: FULL,
        label: "Portcullis, full policy",
        what: "key, agent matrix, 3 argument constraints, `written` record, metrics",
        has_policy: true,
        level: "written",
    },
    Gateway {
        name: "durable",
        label: "Portcullis, `durable` record",
        what: "the same, and each record on the disk before its call goes on",
        has_policy: true,
        level: "durable",
    },
];

impl Stage {
    /// Starts everything, in `directory`.
    pub(super) fn set(programs: &Programs, directory: &Path, threads: usize) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let mut stage = Self {
            ways: Vec::new(),
            absent: Vec::new(),
            directory: directory.to_owned(),
            key: Key::make(&programs.gateway)?,
            threads,
        };

        let upstream = free_address()?;
        let mut command = Command::new(&programs.upstream);
        command.args(["--listen", &upstream.to_string()]);
        let process = Running::start("upstream", &mut command, upstream, directory)?;
        stage.add("direct", "upstream alone", "what the upstream itself takes", upstream, process);

        if let Some(nginx) = &programs.nginx {
            let address = free_address()?;
            let config = directory.join("nginx.conf");
            fs::write(&config, nginx_config(address, upstream, threads, directory))?;
            let mut command = Command::new(nginx);
            command.args(["-c", &config.to_string_lossy(), "-p", &directory.to_string_lossy()]);
            let process = Running::start("nginx", &mut command, address, directory)?;
            stage.add("nginx", "nginx", "moves bytes", address, process);
        } else {
            stage.absent.push("nginx is not installed".to_owned());
        }

        let address = free_address()?;
        let mut command = Command::new(&programs.bare);
        command.args(["--listen", &address.to_string(), "--upstream", &upstream.to_string()]);
        command.args(["--threads", &threads.to_string()]);
        let process = Running::start("bare", &mut command, address, directory)?;
        stage.add(BARE, "bare Pingora", "moves bytes; the yardstick", address, process);

        for gateway in &GATEWAYS {
            stage.add_gateway(gateway, &programs.gateway, upstream)?;
        }
        Ok(stage)
    }

    fn add(
        &mut self,
        name: &'static str,
        label: &'static str,
        what: &'static str,
        address: SocketAddr,
        process: Running,
    ) {
        // Everybody is sent the same bytes, key and all.
        let towards = Towards { address, path: "/mcp".to_owned(), key: Some(self.key.key.clone()) };
        self.ways.push(Way { name, label, what, towards, process, tally: None });
    }

    fn add_gateway(&mut self, gateway: &Gateway, program: &Path, upstream: SocketAddr) -> io::Result<()> {
        let home = self.directory.join(gateway.name);
        fs::create_dir_all(&home)?;
        let (address, admin) = (lasting_address()?, lasting_address()?);
        let config = gateway.config([address, admin, upstream], self.threads, &self.key.digest);
        let file = home.join("portcullis.toml");
        fs::write(&file, config)?;
        let mut command = Command::new(program);
        command.args(["run", "--config"]).arg(&file);
        let process = Running::start(gateway.name, &mut command, address, &self.directory)?;
        let towards = Towards {
            address,
            path: "/mcp/database".to_owned(),
            key: gateway.has_policy.then(|| self.key.key.clone()),
        };
        gateway.prove(&towards)?;
        self.ways.push(Way {
            name: gateway.name,
            label: gateway.label,
            what: gateway.what,
            towards,
            process,
            tally: Some(Tally::new(home.join("audit"))),
        });
        Ok(())
    }
}

impl Gateway {
    fn config(&self, [address, admin, upstream]: [SocketAddr; 3], threads: usize, digest: &str) -> String {
        let level = self.level;
        let common = format!(
            r#"[listen]
data = "{address}"
admin = "{admin}"
threads = {threads}
accepts_per_address_max = 1000000

[audit]
directory = "audit"
level = "{level}"

[state]
directory = "state"

[servers.database]
url = "http://{upstream}/mcp"
pending_max = 20000
"#
        );
        if !self.has_policy {
            return format!("{common}access = \"public\"\n");
        }
        format!(
            r#"{common}blocked_tools = ["drop_*", "truncate_*"]

[keys.load]
digest = "{digest}"
mcp_servers = ["database"]
agent = "analyst"

[agents.analyst.servers.database]
allowed_tools = ["execute_query", "describe_table", "read_blob", "watch_table", "wait", "fail", "list_*"]
argument_constraints.execute_query = [
  {{ arg = "sql", pattern = '^\s*SELECT ' }},
  {{ arg = "database", pattern = '^(production|staging)$' }},
  {{ arg = "timeout_ms", pattern = '^[1-9][0-9]{{0,3}}$' }},
]
argument_constraints.watch_table = [
  {{ arg = "sql", pattern = '^\s*SELECT ' }},
  {{ arg = "database", pattern = '^(production|staging)$' }},
  {{ arg = "timeout_ms", pattern = '^[1-9][0-9]{{0,3}}$' }},
]
"#
        )
    }

    /// Shows that what must be refused is refused, and the rest is not.
    fn prove(&self, towards: &Towards) -> io::Result<()> {
        let target = |key: Option<String>| Target {
            host: towards.address.to_string(),
            path: towards.path.clone(),
            key: key.or_else(|| towards.key.clone()),
            tool_prefix: String::new(),
        };
        let mut connection = Connection::new(towards.address, Duration::from_secs(10));
        let mut ask = |ask: Ask, key: Option<String>, expected: Expected, era: Era| {
            let mut prepared = target(key).prepare(ask, era, None);
            let (bytes, id) = prepared.numbered(1);
            let answer = connection.send(bytes).and_then(|()| connection.receive());
            let judged = answer.map_err(|wrong| wrong.name()).and_then(|answer| {
                if answer.status == 401 && expected == Expected::Failure {
                    return Ok(());
                }
                judge(&answer, id, expected).map_err(|wrong| wrong.name())
            });
            let name = self.name;
            judged.map_err(|wrong| io::Error::other(format!("`{name}` does not answer {ask:?} as it must: {wrong}")))
        };
        for era in [Era::Plain, Era::Modern] {
            ask(Ask::Query, None, Expected::Result, era)?;
            if self.has_policy {
                ask(Ask::Blocked, None, Expected::Error, era)?;
                ask(Ask::Constrained, None, Expected::Error, era)?;
                ask(Ask::Query, Some("ptc_nobody".to_owned()), Expected::Failure, era)?;
            }
        }
        Ok(())
    }
}

fn nginx_config(listen: SocketAddr, upstream: SocketAddr, workers: usize, directory: &Path) -> String {
    let directory = directory.display();
    format!(
        r"daemon off;
worker_processes {workers};
pid {directory}/nginx.pid;
error_log {directory}/nginx-error.log warn;
events {{ worker_connections 4096; }}
http {{
  access_log off;
  client_body_temp_path {directory}/nginx-body;
  proxy_temp_path {directory}/nginx-proxy;
  fastcgi_temp_path {directory}/nginx-fastcgi;
  uwsgi_temp_path {directory}/nginx-uwsgi;
  scgi_temp_path {directory}/nginx-scgi;
  keepalive_requests 100000000;
  upstream mcp {{ server {upstream}; keepalive 128; keepalive_requests 100000000; }}
  server {{
    listen {listen};
    location / {{
      proxy_pass http://mcp;
      proxy_http_version 1.1;
      proxy_set_header Connection '';
      proxy_set_header Host $http_host;
      proxy_read_timeout 600s;
    }}
  }}
}}
"
    )
}
