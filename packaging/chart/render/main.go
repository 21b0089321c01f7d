// What `helm lint` and `helm template` do, by helm's own packages.
package main

import (
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
)

func main() {
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// run prints every manifest of a chart, with the values of a file.
func run(folder, file string) error {
	given, err := chartutil.ReadValuesFile(file)
	if err != nil {
		return err
	}
	for _, told := range lint.All(folder, given, "default", true).Messages {
		fmt.Fprintln(os.Stderr, told)
		if told.Severity >= support.WarningSev {
			return fmt.Errorf("lint: %s", told)
		}
	}
	chart, err := loader.Load(folder)
	if err != nil {
		return err
	}
	options := chartutil.ReleaseOptions{Name: "store", Namespace: "default", Revision: 1, IsInstall: true}
	if filepath.Base(file) == "upgrade.yaml" {
		options.Revision, options.IsInstall, options.IsUpgrade = 2, false, true
	}
	values, err := chartutil.ToRenderValues(chart, given, options, chartutil.DefaultCapabilities)
	if err != nil {
		return err
	}
	made, err := engine.Render(chart, values)
	if err != nil {
		return err
	}
	names := make([]string, 0, len(made))
	for name := range made {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		fmt.Printf("---\n# Source: %s\n%s\n", name, made[name])
	}
	return nil
}
