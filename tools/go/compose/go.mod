// Only tools/install.py reads this: "go install" refuses compose for its exclude directives.
module example.invalid/compose

go 1.26

require github.com/docker/compose/v2 v2.40.3
