// Only tools/install.py reads this. pint wants a module of its own: "go install" of it asks for its list of
// versions, which is refused, and a module shared with other tools would mix their requirements.
module example.invalid/pint

go 1.26

require github.com/cloudflare/pint v0.87.0
