// Reads a kind configuration on stdin and decodes it strictly with kind's own types: an unknown or misspelt field,
// a wrong type or a wrong apiVersion is an error on stderr and exit status 1. Needs no container engine.
package main

import (
	"fmt"
	"io"
	"os"

	"go.yaml.in/yaml/v3"
	"sigs.k8s.io/kind/pkg/apis/config/v1alpha4"
)

const apiVersion = "kind.x-k8s.io/v1alpha4"

func check(input io.Reader) error {
	decoder := yaml.NewDecoder(input)
	decoder.KnownFields(true)
	cluster := v1alpha4.Cluster{}
	if err := decoder.Decode(&cluster); err != nil {
		return fmt.Errorf("cannot decode: %w", err)
	}
	if err := decoder.Decode(&v1alpha4.Cluster{}); err != io.EOF {
		return fmt.Errorf("a kind configuration is a single document, found more")
	}
	if cluster.Kind != "Cluster" || cluster.APIVersion != apiVersion {
		return fmt.Errorf("want kind Cluster of %s, got %q of %q", apiVersion, cluster.Kind, cluster.APIVersion)
	}
	return nil
}

func main() {
	if err := check(os.Stdin); err != nil {
		fmt.Fprintf(os.Stderr, "kind-config-check: %v\n", err)
		os.Exit(1)
	}
}
