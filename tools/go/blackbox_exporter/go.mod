// Only tools/install.py reads this. blackbox_exporter wants a module of its own: "go install" of it is refused,
// and a module shared with other tools would mix their requirements.
module example.invalid/blackbox_exporter

go 1.26

require github.com/prometheus/blackbox_exporter v0.28.0
