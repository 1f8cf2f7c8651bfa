//! Certificates as an operator would make them: by openssl, in a directory of the test's own.

use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

/// An issuer of certificates, with the directory in which it leaves them.
pub(crate) struct Authority {
    name: String,
    directory: PathBuf,
}

impl Authority {
    /// Makes an issuer: `NAME.pem` and `NAME.key` in `directory`.
    pub(crate) fn new(directory: &Path, name: &str) -> Self {
        std::fs::write(
            directory.join("openssl.cnf"),
            "[req]\ndistinguished_name = dn\n[dn]\n[ca]\nbasicConstraints = critical, CA:TRUE\nkeyUsage = critical, keyCertSign\n",
        )
        .unwrap();
        let authority = Self { name: name.to_owned(), directory: directory.to_owned() };
        authority.openssl(&format!(
            "req -x509 -config openssl.cnf -extensions ca -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj /CN={name} -keyout {name}.key -out {name}.pem"
        ));
        authority
    }

    /// Makes `FILE.pem` and `FILE.key` for these alternative names (`DNS:a.example,IP:127.0.0.1`), valid for `days`; for
    /// fewer than none, it has expired.
    pub(crate) fn issue(&self, file: &str, names: &str, days: i32) {
        let ca = &self.name;
        std::fs::write(
            self.directory.join(format!("{file}.ext")),
            format!("subjectAltName = {names}\nbasicConstraints = critical, CA:FALSE\n"),
        )
        .unwrap();
        self.openssl(&format!(
            "req -new -config openssl.cnf -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={file} -keyout {file}.key -out {file}.csr"
        ));
        self.openssl(&format!(
            "x509 -req -in {file}.csr -CA {ca}.pem -CAkey {ca}.key -CAcreateserial -days {days} -extfile {file}.ext -out {file}.pem"
        ));
    }

    /// The path of one of its files.
    pub(crate) fn path(&self, file: &str) -> String {
        self.directory.join(file).to_str().unwrap().to_owned()
    }

    /// Runs openssl in the directory; what it printed.
    pub(crate) fn openssl(&self, arguments: &str) -> String {
        let output =
            Command::new("openssl").args(arguments.split(' ')).current_dir(&self.directory).output().expect("openssl");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}
