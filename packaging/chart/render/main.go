// What `helm lint` and `helm template` do, by helm's own packages.
package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sort"

	"helm.sh/helm/v3/pkg/chart/loader"
	"helm.sh/helm/v3/pkg/chartutil"
	"helm.sh/helm/v3/pkg/engine"
	"helm.sh/helm/v3/pkg/lint"
	"helm.sh/helm/v3/pkg/lint/support"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
)

// cluster is a Kubernetes whose StatefulSet has so many replicas, by the file of values; others have none.
type cluster struct {
	dynamic.NamespaceableResourceInterface
	replicas int64
}

var clusters = map[string]int64{"upgrade.yaml": 3, "tls.yaml": 7}

func (c cluster) GetClientFor(string, string) (dynamic.NamespaceableResourceInterface, bool, error) {
	return c, true, nil
}

func (c cluster) Namespace(string) dynamic.ResourceInterface { return c }

func (c cluster) Get(context.Context, string, metav1.GetOptions, ...string) (*unstructured.Unstructured, error) {
	spec := map[string]interface{}{"replicas": c.replicas}
	return &unstructured.Unstructured{Object: map[string]interface{}{"spec": spec}}, nil
}

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
	if replicas, runs := clusters[filepath.Base(file)]; runs && err == nil {
		made, err = engine.RenderWithClientProvider(chart, values, cluster{replicas: replicas})
	}
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
