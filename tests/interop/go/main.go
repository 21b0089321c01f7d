// The programs are one: the first argument names which. A program of its own for each would be linked for each, which
// takes most of the time of a build.
package main

import (
	"fmt"
	"os"

	"muster.dev/interop/checks"
	"muster.dev/interop/contend"
	"muster.dev/interop/discover"
	"muster.dev/interop/failover"
	"muster.dev/interop/measure"
	"muster.dev/interop/register"
	"muster.dev/interop/rolling"
	"muster.dev/interop/shaken"
)

var programs = map[string]func(){
	"checks": checks.Main, "contend": contend.Main, "discover": discover.Main, "failover": failover.Main,
	"measure": measure.Main, "register": register.Main, "rolling": rolling.Main, "shaken": shaken.Main,
}

func main() {
	if len(os.Args) > 1 {
		if program, known := programs[os.Args[1]]; known {
			os.Args = os.Args[1:]
			program()
			return
		}
	}
	fmt.Fprintln(os.Stderr, "the first argument names a program: a folder beside main.go")
	os.Exit(2)
}
