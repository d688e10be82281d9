// Reads HomeFed's ledger with other people's implementations of the C2SP transparency log formats. Each command ends
// with exit status 0 and a line of JSON, or with 1 and the reason on stderr.
//
//	tree URL VKEY SIZE:ROOT…         fetch everything, verify it, and that it continues the trees of those sizes
//	receipt VKEY RECEIPT ENTRY       verify a tlog-proof (files)
//	cosigned NOTE VKEY COSIGNER…     verify a checkpoint (file) and that every cosigner has signed it
//	sign SKEY TEXT | cosign NAME SEED NOTE | vkey SKEY     make notes, cosignatures, keys
//	witnessed DIRECTORY SKEY COSIGNER URL                  a log of Tessera's that asks a witness at URL
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"
)

type result map[string]any

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	found, err := run(ctx, os.Args[1:])
	if err != nil {
		fmt.Fprintf(os.Stderr, "tlog-check: %v\n", err)
		os.Exit(1)
	}
	if err := json.NewEncoder(os.Stdout).Encode(found); err != nil {
		os.Exit(1)
	}
}

func run(ctx context.Context, words []string) (result, error) {
	switch command, n := words[0], len(words)-1; {
	case command == "tree" && n >= 2:
		return tree(ctx, words[1], words[2], words[3:])
	case command == "receipt" && n == 3:
		return receipt(words[1], words[2], words[3])
	case command == "cosigned" && n >= 3:
		return cosigned(words[1], words[2], words[3:])
	case command == "sign" && n == 2:
		return sign(words[1], words[2])
	case command == "cosign" && n == 3:
		return cosign(words[1], words[2], words[3])
	case command == "vkey" && n == 1:
		return vkey(words[1])
	case command == "witnessed" && n == 4:
		return witnessed(ctx, words[1], words[2], words[3], words[4])
	}
	return nil, fmt.Errorf("unknown command %q", words)
}
