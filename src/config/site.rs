//! `[[site]]`: its hosts, its origin, and the layers that its rules come from.

use super::complaint::{Complaints, Place};
use super::layer::{Layer, Level, Stack, Stacks};
use super::section::{Placed, Reading, Section, Text};
use crate::bans;
use crate::guard::access;
use crate::guard::host::HostPattern;
use crate::harden::OriginAuthority;
use crate::observe::SiteId;
use crate::site::Site;
use crate::tls::clients;
use crate::upstream::{self, Upstream};

/// One `[[site]]` as it was written.
pub struct Raw {
    /// Which hosts it answers to.
    pub hosts: Vec<Placed<HostPattern>>,
    preset: Stack,
    upstream: upstream::settings::Raw,
    /// What the site says itself, if anything.
    own: Option<Box<Layer>>,
    access: Vec<access::Raw>,
    /// What it asks of its clients, if it says so; for the listeners.
    pub clients: Option<Box<clients::Raw>>,
    place: Place,
}

/// What all sites of a configuration are compiled with.
pub struct Common<'f> {
    /// The layer between preset and site.
    pub file: &'f Layer,
    /// The presets, and the routes that sites share.
    pub stacks: Stacks,
    /// What their origins share.
    pub origins: upstream::settings::Common,
    /// Limits towards origins.
    pub limits: upstream::Limits,
    /// How many threads serve.
    pub workers: usize,
}

impl Raw {
    /// Reads the whole table.
    pub fn read(mut section: Section<'_>, stacks: &mut Stacks, reading: &mut Reading<'_>) -> Self {
        let place = section.place.clone();
        let hosts = section
            .get::<Vec<Placed<Text<HostPattern>>>>(reading, "hosts")
            .map(|list| list.value.into_iter().map(|host| host.map(|text| text.0)).collect::<Vec<_>>())
            .unwrap_or_default();
        // Hosts that could not be read have been complained about one by one.
        if hosts.is_empty() && section.item("hosts").is_none_or(|written| written.elements().is_empty()) {
            let hint = Some("write `hosts = [\"www.example.org\"]`, or `[\"*\"]` for every host".to_owned());
            reading.complaints.error(Some(&place), "this `[[site]]` has no `hosts`", hint);
        }
        let preset = section.get::<String>(reading, "preset");
        let level = section.get::<Text<Level>>(reading, "level").map(|l| l.value.0).unwrap_or_default();
        if preset.is_none() {
            let hint = "write `preset = \"typo3\"`, or `preset = \"none\"` if you mean it".to_owned();
            let message = "this `[[site]]` has no `preset`: no security header is sent that you do not write";
            reading.complaints.warning(Some(&place), message, Some(hint));
        }
        let name = preset.as_ref().map_or("none", |p| p.value.as_str());
        let preset = stacks.preset(name, level, preset.as_ref().map(|p| &p.place), reading);
        let upstream = upstream::settings::Raw::read(&mut section, reading);
        let access = access::Raw::read(&mut section, reading);
        let clients = clients::Raw::read(&mut section, reading);
        let clients = (!clients.is_empty()).then(|| Box::new(clients));
        let layer = Layer::read(&mut section, reading);
        layer.check_inside(&mut reading.complaints);
        section.finish(reading);
        let own = layer.written.then(|| Box::new(layer));
        Self { hosts, preset, upstream, own, access, clients, place }
    }

    /// The site with its routes.
    pub fn compile(self, index: usize, common: &mut Common<'_>, complaints: &mut Complaints) -> Site {
        let routes = common.stacks.routes(&self.preset, common.file, self.own.as_deref(), complaints);
        let origin = self.upstream.compile(&mut common.origins, complaints);
        let upstream = Upstream::new(&origin, common.limits, common.workers);
        let name: Box<str> =
            self.hosts.first().map_or_else(|| "*".into(), |host| host.value.to_string().into());
        Site {
            id: bans::SiteId::of(&name),
            name,
            index,
            meter: SiteId::OTHER,
            origin_authorities: origin
                .addresses()
                .map(|(host, port)| OriginAuthority { host: host.into(), port })
                .collect(),
            upstream,
            access: access::Raw::compile(&self.access, &routes, complaints),
            routes,
            place: self.place,
        }
    }
}
