//! How to make a machine or a browser trust the development CA, in words.

use std::path::Path;

/// Steps for Debian, Fedora, macOS, Windows and Firefox, each ready to be pasted, and how to undo them.
#[must_use]
pub fn trust_instructions(root: &Path) -> String {
    let root = root.display();
    format!(
        "To trust the development CA, do this once on the machine that the browser runs on.
Its root vouches only for localhost, *.test, *.ddev.site and loopback addresses.

Debian, Ubuntu (curl and most programs)
    sudo cp '{root}' /usr/local/share/ca-certificates/ravelin-development.crt
    sudo update-ca-certificates
    undo: sudo rm /usr/local/share/ca-certificates/ravelin-development.crt && sudo update-ca-certificates --fresh

Fedora, RHEL (curl and most programs)
    sudo cp '{root}' /etc/pki/ca-trust/source/anchors/ravelin-development.crt
    sudo update-ca-trust
    undo: sudo rm /etc/pki/ca-trust/source/anchors/ravelin-development.crt && sudo update-ca-trust

Chrome and Chromium on Linux (certutil is in libnss3-tools or nss-tools)
    certutil -d sql:$HOME/.pki/nssdb -A -t C,, -n ravelin-development -i '{root}'
    undo: certutil -d sql:$HOME/.pki/nssdb -D -n ravelin-development

macOS (Safari, Chrome)
    sudo security add-trusted-cert -d -r trustRoot -k /Library/Keychains/System.keychain '{root}'
    undo: sudo security remove-trusted-cert -d '{root}'

Windows (Edge, Chrome), in a prompt of an administrator, with the file copied to that machine
    certutil -addstore -f Root root.crt
    undo: certlm.msc, Trusted Root Certification Authorities, delete \"Ravelin development CA\"

Firefox, everywhere
    Settings, Privacy & Security, Certificates, View Certificates, Authorities, Import: {root},
    then tick \"Trust this CA to identify websites\".
    undo: the same list, Delete or Distrust
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_system_is_named_and_every_step_names_the_file() {
        let text = trust_instructions(Path::new("/home/dev/ca/root.crt"));
        for system in ["Debian", "Fedora", "macOS", "Windows", "Firefox", "Chromium"] {
            assert!(text.contains(system), "{system} is missing");
        }
        assert_eq!(text.matches("/home/dev/ca/root.crt").count(), 6);
    }
}
