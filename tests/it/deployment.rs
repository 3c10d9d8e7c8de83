//! The files that an operator copies (container, ECS, systemd): they parse, they agree with one another and with
//! the product, and give no right away that is not needed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::harness::{outside, ravelin, run};

fn shipped(name: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// `drain_delay` and `grace` as shipped, together.
const STOP_SECONDS: u64 = 5 + 30;

/// What a file gives as environment must be a configuration without errors, and with so many warnings.
#[track_caller]
fn usable(environment: &[(String, String)], warnings: &str) {
    let said = run(ravelin().arg("check").envs(environment.iter().cloned()));
    assert!(
        said.code == Some(0) && said.out.contains("\nok:") | said.out.starts_with("ok:"),
        "{}",
        said.all()
    );
    assert!(said.out.contains(&format!("({warnings})")), "{}", said.all());
}

#[test]
fn the_ecs_task_stops_in_order_and_may_do_nothing_else() {
    let task: Value = serde_json::from_str(&shipped("ecs/task-definition.json")).unwrap();
    assert_eq!(task["networkMode"], "awsvpc");
    let find = |name| {
        task["containerDefinitions"].as_array().unwrap().iter().find(|c| c["name"] == name).unwrap().clone()
    };
    let ours = find("ravelin");
    assert_eq!(ours["user"], "65532:65532");
    assert_eq!(ours["readonlyRootFilesystem"], true);
    assert_eq!(ours["linuxParameters"]["capabilities"]["drop"][0], "ALL");
    assert!(ours["stopTimeout"].as_u64().unwrap() > STOP_SECONDS);
    // The first to start is the last to stop: Apache outlives what is under way.
    assert_eq!(ours["dependsOn"][0]["containerName"], "apache");
    assert!(find("apache")["portMappings"].is_null(), "nobody but the sidecar reaches Apache");
    assert_eq!(ours["healthCheck"]["command"][0], "CMD", "there is no shell in the image");
    assert_eq!(ours["logConfiguration"]["options"]["mode"], "non-blocking");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let pairs = ours["environment"].as_array().unwrap();
    let environment: Vec<_> = pairs.iter().map(|pair| (text(&pair["name"]), text(&pair["value"]))).collect();
    // The one is about health, which the balancer asks from outside: the security group guards its port.
    usable(&environment, "1 warning");
    let listens = environment.iter().find(|(name, _)| name == "RAVELIN_LISTEN").unwrap();
    assert!(listens.1.ends_with(":8080") && ours["portMappings"][0]["containerPort"] == 8080);
}

#[test]
fn the_security_groups_let_nobody_reach_apache_and_nothing_out_but_https() {
    // CloudFormation's own tags (`!Ref Name`) are kept as plain text.
    let text = shipped("ecs/security-groups.yaml").replace("!Ref ", "");
    let template: Value = serde_norway::from_str(&text).unwrap();
    let resources = template["Resources"].as_object().unwrap();
    let open = |rule: &Value| rule["CidrIp"] == "0.0.0.0/0" || rule["CidrIpv6"] == "::/0";
    for (name, resource) in resources {
        let properties = &resource["Properties"];
        let list = |key: &str| properties[key].as_array().cloned().unwrap_or_default();
        for rule in list("SecurityGroupIngress").iter().filter(|rule| open(rule)) {
            let port = rule["FromPort"].as_u64().unwrap();
            assert!(name == "Balancer" && [80, 443].contains(&port), "{name}: {rule}");
        }
        for rule in list("SecurityGroupEgress").iter().filter(|rule| open(rule)) {
            assert_eq!(rule["FromPort"], 443, "{name}: {rule}");
            assert_eq!(rule["ToPort"], 443, "{name}: {rule}");
        }
        let kind = resource["Type"].as_str().unwrap();
        if kind == "AWS::EC2::SecurityGroup" {
            assert!(
                !list("SecurityGroupEgress").is_empty(),
                "{name}: without a rule AWS lets everything out"
            );
        } else {
            let group = properties["GroupId"].as_str().unwrap();
            assert!(resources.contains_key(group), "{name}: there is no group {group}");
            assert_eq!(properties["FromPort"], properties["ToPort"], "{name}");
        }
    }
}

/// What is written there may be sent to AWS as it is: resources, their properties and values, and what refers to what.
#[test]
fn cloudformation_has_nothing_against_the_templates() {
    let Some(mut lint) = outside::cfn_lint() else { return };
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config/ecs");
    let said = run(lint
        .args(["--regions", "eu-central-1", "--", "security-groups.yaml", "service.yaml"])
        .current_dir(folder));
    assert!(said.code == Some(0) && said.all().trim().is_empty(), "{}", said.all());
}

/// The service's template and the task definition are two ways to the same task.
#[test]
fn the_service_runs_the_task_and_gives_it_no_right() {
    let file = shipped("ecs/service.yaml");
    for tag in ["!Ref ", "!Sub ", "!GetAtt "] {
        assert!(file.contains(tag), "{tag} is CloudFormation's own");
    }
    let text = ["!Ref ", "!Sub ", "!GetAtt "].iter().fold(file.clone(), |text, tag| text.replace(tag, ""));
    let template: Value = serde_norway::from_str(&text).unwrap();
    let resource = |name: &str| template["Resources"][name]["Properties"].clone();
    let task = resource("Task");
    assert!(task["TaskRoleArn"].is_null(), "Ravelin and Apache have nothing to do at AWS");
    let [ours, apache] = task["ContainerDefinitions"].as_array().unwrap().as_slice() else {
        panic!("{task}")
    };
    let json: Value = serde_json::from_str(&shipped("ecs/task-definition.json")).unwrap();
    let theirs = &json["containerDefinitions"][0];
    assert_eq!(ours["User"], theirs["user"]);
    assert_eq!(ours["ReadonlyRootFilesystem"], theirs["readonlyRootFilesystem"]);
    assert_eq!(ours["StopTimeout"], theirs["stopTimeout"]);
    assert_eq!(ours["HealthCheck"]["Command"], theirs["healthCheck"]["command"]);
    assert_eq!(ours["LinuxParameters"]["Capabilities"]["Drop"][0], "ALL");
    assert!(apache["PortMappings"].is_null(), "nobody but the sidecar reaches Apache");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let defaults = |value: String| match template["Parameters"][&value]["Default"].as_str() {
        Some(default) => default.to_owned(),
        None => value,
    };
    let pairs = ours["Environment"].as_array().unwrap();
    let environment: Vec<_> =
        pairs.iter().map(|pair| (text(&pair["Name"]), defaults(text(&pair["Value"])))).collect();
    usable(&environment, "1 warning");
    let targets = resource("Targets");
    assert_eq!(
        (&targets["HealthCheckPath"], &targets["HealthCheckPort"]),
        (&"/-/readyz".into(), &"9145".into())
    );
    let service = resource("Service");
    assert_eq!(service["NetworkConfiguration"]["AwsvpcConfiguration"]["AssignPublicIp"], "DISABLED");
}

#[test]
fn the_compose_file_is_a_dry_run_on_this_machine_only() {
    let file: Value = serde_norway::from_str(&shipped("container/compose.yaml")).unwrap();
    let ours = &file["services"]["ravelin"];
    assert_eq!(ours["read_only"], true);
    assert_eq!(ours["cap_drop"][0], "ALL");
    assert!(ours["ports"][0].as_str().unwrap().starts_with("127.0.0.1:"));
    let grace = ours["stop_grace_period"].as_str().unwrap().trim_end_matches('s').parse::<u64>().unwrap();
    assert!(grace > STOP_SECONDS);
    let environment: Vec<_> = ours["environment"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .map(|(name, value)| (name, if value.starts_with("${") { "http://web:80".into() } else { value }))
        .collect();
    assert!(environment.iter().any(|(name, value)| name == "RAVELIN_DRY_RUN" && value == "true"));
    // Nobody stands in front of it, and that is what the one warning asks.
    usable(&environment, "1 warning");
}

/// Compose reads it as it is meant, and is one that would notice a slip.
#[test]
fn compose_has_nothing_against_its_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let compose = |file: &Path| {
        let mut command = Command::new("docker-compose");
        command.arg("-f").arg(file).arg("config").env_remove("RAVELIN_UPSTREAM").env_remove("SITE");
        run(&mut command)
    };
    let said = compose(&root.join("config/container/compose.yaml"));
    said.exits(0);
    let read: Value = serde_norway::from_str(&said.out).unwrap();
    let ours = &read["services"]["ravelin"];
    let context = Path::new(ours["build"]["context"].as_str().unwrap());
    assert_eq!(context.canonicalize().unwrap(), root.canonicalize().unwrap());
    assert!(context.join(ours["build"]["dockerfile"].as_str().unwrap()).is_file());
    assert_eq!(ours["environment"]["RAVELIN_UPSTREAM"], "http://web:80");
    assert_eq!(ours["stop_grace_period"], "45s");
    let dir = tempfile::tempdir().unwrap();
    let wrong = dir.path().join("compose.yaml");
    std::fs::write(&wrong, shipped("container/compose.yaml").replace("read_only:", "readonly:")).unwrap();
    let said = compose(&wrong);
    assert!(said.code != Some(0) && said.err.contains("readonly"), "{}", said.all());
}

#[test]
fn the_image_is_one_static_binary_and_no_root() {
    let text = shipped("container/Dockerfile");
    // As tests/static builds it, from nothing that was built elsewhere.
    assert!(text.contains("\nRUN .ci/release /dist "), "{text}");
    assert!(shipped("container/Dockerfile.dockerignore").lines().any(|line| line == "target"));
    let last = text.rsplit("\nFROM ").next().unwrap();
    assert!(last.starts_with("scratch\n"), "{last}");
    for line in [
        "USER 65532:65532",
        "STOPSIGNAL SIGTERM",
        "ENTRYPOINT [\"/ravelin\"]",
        "CMD [\"/ravelin\", \"health\"]",
    ] {
        assert!(last.contains(line), "{line} is missing");
    }
    assert!(!last.contains("RUN "), "there is no shell that could run it");
    let toolchain =
        include_str!("../../Cargo.toml").lines().find_map(|line| line.strip_prefix("rust-version = "));
    let version = toolchain.unwrap().trim_matches('"');
    assert!(text.contains(&format!("FROM rust:{version}-")), "built with Rust {version}, as Cargo.toml says");
}

#[test]
fn the_unit_waits_for_readiness_and_gives_nearly_every_right_away() {
    let unit = shipped("systemd/ravelin.service");
    let value = |key: &str| {
        let line = unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        line.unwrap_or_else(|| panic!("{key} is missing")).to_owned()
    };
    assert_eq!(value("Type"), "notify");
    assert_eq!(value("CapabilityBoundingSet"), "CAP_NET_BIND_SERVICE");
    assert!(value("TimeoutStopSec").parse::<u64>().unwrap() > STOP_SECONDS);
    assert_eq!(value("DynamicUser"), "yes");
    // systemd judges for itself: alone, and with its socket.
    let dir = tempfile::tempdir().unwrap();
    let (service, socket) = (dir.path().join("ravelin.service"), dir.path().join("ravelin.socket"));
    std::fs::write(&service, unit.replace("/usr/local/bin/ravelin", "/bin/true")).unwrap();
    let verify = |units: &[&Path]| {
        let said = run(Command::new("systemd-analyze").args(["verify", "--man=no"]).args(units));
        assert!(said.code == Some(0) && said.all().trim().is_empty(), "{}", said.all());
    };
    verify(&[&service]);
    std::fs::write(&socket, shipped("systemd/ravelin.socket")).unwrap();
    verify(&[&socket, &service]);
    let said = run(Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--threshold=25"])
        .arg(&service));
    assert_eq!(said.code, Some(0), "exposure above 2.5:\n{}", said.all());
}

/// A socket is claimed by its address: these are the ones that the default configuration listens on.
#[test]
fn systemd_opens_what_the_default_configuration_listens_on() {
    let socket = shipped("systemd/ravelin.socket");
    let opened: BTreeSet<_> =
        socket.lines().filter_map(|line| line.strip_prefix("ListenStream=")).map(str::to_owned).collect();
    let config = run(ravelin().args(["config", "default"])).out;
    let listened: BTreeSet<_> = config
        .split("\n[[listen]]\n")
        .skip(1)
        .filter_map(|table| table.strip_prefix("url = \"")?.split('"').next()?.split_once("://"))
        .map(|(_, address)| address.to_owned())
        .collect();
    assert_eq!(opened, listened);
    assert_eq!(opened.len(), 2);
    // The operator's guide shows the same.
    let guide = include_str!("../../docs/operations.md");
    let shown: BTreeSet<_> =
        guide.lines().filter_map(|line| line.strip_prefix("ListenStream=")).map(str::to_owned).collect();
    assert_eq!(shown, opened);
}
