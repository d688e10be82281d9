package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"filippo.io/torchwood"
	flog "github.com/transparency-dev/formats/log"
	"github.com/transparency-dev/merkle/proof"
	"github.com/transparency-dev/merkle/rfc6962"
	"github.com/transparency-dev/tessera/api"
	"github.com/transparency-dev/tessera/client"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// tree verifies a log with each implementation by itself.
func tree(ctx context.Context, prefix, key string, olds []string) (result, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return nil, err
	}
	fetcher, err := torchwood.NewTileFetcher(prefix)
	if err != nil {
		return nil, err
	}
	signed, err := fetcher.ReadEndpoint(ctx, "checkpoint")
	if err != nil {
		return nil, err
	}
	head, err := opened(signed, verifier)
	if err != nil {
		return nil, err
	}
	entries, err := withTorchwood(ctx, fetcher, head.Tree)
	if err != nil {
		return nil, fmt.Errorf("torchwood: %w", err)
	}
	if err := withTlog(ctx, fetcher, head.Tree, olds); err != nil {
		return nil, fmt.Errorf("x/mod/sumdb/tlog: %w", err)
	}
	if err := withTessera(ctx, prefix, verifier, head, olds); err != nil {
		return nil, fmt.Errorf("tessera: %w", err)
	}
	return result{"size": head.N, "root": hex.EncodeToString(head.Hash[:]), "entries": entries}, nil
}

// opened is the checkpoint as three parsers agree on it.
func opened(signed []byte, verifier note.Verifier) (torchwood.Checkpoint, error) {
	opened, err := note.Open(signed, note.VerifierList(verifier))
	if err != nil {
		return torchwood.Checkpoint{}, fmt.Errorf("x/mod/sumdb/note: %w", err)
	}
	tree, err := tlog.ParseTree([]byte("go.sum database tree\n" + strings.SplitN(opened.Text, "\n", 2)[1]))
	if err != nil {
		return torchwood.Checkpoint{}, fmt.Errorf("x/mod/sumdb/tlog: %w", err)
	}
	policy := torchwood.ThresholdPolicy(2,
		torchwood.SingleVerifierPolicy(verifier), torchwood.OriginPolicy(verifier.Name()))
	head, _, err := torchwood.VerifyCheckpoint(signed, policy)
	if err != nil {
		return head, fmt.Errorf("torchwood: %w", err)
	}
	parsed, rest, _, err := flog.ParseCheckpoint(signed, verifier.Name(), verifier)
	if err != nil {
		return head, fmt.Errorf("formats: %w", err)
	}
	if tree != head.Tree || parsed.Size != uint64(head.N) || tlog.Hash(parsed.Hash) != head.Hash || len(rest) > 0 {
		return head, errors.New("the parsers read different checkpoints")
	}
	return head, nil
}

// withTorchwood reads every entry through verified tiles.
func withTorchwood(ctx context.Context, tiles torchwood.TileReader, tree tlog.Tree) (int64, error) {
	reader, err := torchwood.NewClient(tiles)
	if err != nil {
		return 0, err
	}
	next := int64(0)
	for index := range reader.AllEntries(ctx, tree, 0) {
		if index != next {
			return next, fmt.Errorf("entry %d instead of %d", index, next)
		}
		next++
	}
	if err := reader.Err(); err != nil {
		return next, err
	}
	if next != tree.N {
		return next, fmt.Errorf("%d entries of %d", next, tree.N)
	}
	for _, index := range []int64{0, tree.N / 2, tree.N - 1} {
		entry, inclusion, err := reader.Entry(ctx, tree, index)
		if err != nil {
			return next, err
		}
		if err := tlog.CheckRecord(inclusion, tree.N, tree.Hash, index, tlog.RecordHash(entry)); err != nil {
			return next, err
		}
	}
	return next, nil
}

// withTlog computes the root and the consistency proofs from tiles.
func withTlog(ctx context.Context, tiles torchwood.TileReader, tree tlog.Tree, olds []string) error {
	hashes := torchwood.TileHashReaderWithContext(ctx, tree, tiles)
	root, err := tlog.TreeHash(tree.N, hashes)
	if err != nil {
		return err
	}
	if root != tree.Hash {
		return fmt.Errorf("the tiles' root is %x, not %x", root, tree.Hash)
	}
	for _, old := range olds {
		size, oldRoot, err := sizeAndRoot(old)
		if err != nil {
			return err
		}
		consistency, err := tlog.ProveTree(tree.N, size, hashes)
		if err != nil {
			return err
		}
		if err := tlog.CheckTree(consistency, tree.N, tree.Hash, size, oldRoot); err != nil {
			return fmt.Errorf("size %d: %w", size, err)
		}
	}
	return nil
}

// withTessera fetches bundles and builds proofs with Tessera's client, and checks them with transparency-dev/merkle.
func withTessera(ctx context.Context, prefix string, verifier note.Verifier, head torchwood.Checkpoint, olds []string) error {
	root, err := url.Parse(prefix + "/")
	if err != nil {
		return err
	}
	fetcher, err := client.NewHTTPFetcher(root, nil)
	if err != nil {
		return err
	}
	checkpoint, _, _, err := client.FetchCheckpoint(ctx, fetcher.ReadCheckpoint, verifier, verifier.Name())
	if err != nil {
		return err
	}
	size := uint64(head.N)
	if checkpoint.Size != size || tlog.Hash(checkpoint.Hash) != head.Hash {
		return errors.New("another checkpoint than a moment ago")
	}
	builder, err := client.NewProofBuilder(ctx, size, fetcher.ReadTile)
	if err != nil {
		return err
	}
	for _, old := range olds {
		smaller, oldRoot, err := sizeAndRoot(old)
		if err != nil {
			return err
		}
		consistency, err := builder.ConsistencyProof(ctx, uint64(smaller), size)
		if err != nil {
			return err
		}
		err = proof.VerifyConsistency(rfc6962.DefaultHasher, uint64(smaller), size, consistency, oldRoot[:], head.Hash[:])
		if err != nil {
			return fmt.Errorf("size %d: %w", smaller, err)
		}
	}
	return bundles(ctx, fetcher, builder, size, head.Hash)
}

// bundles verifies the inclusion of every entry of the first and the last bundle.
func bundles(ctx context.Context, fetcher *client.HTTPFetcher, builder *client.ProofBuilder, size uint64, root tlog.Hash) error {
	for _, number := range []uint64{0, (size - 1) / 256} {
		bundle, err := client.GetEntryBundle(ctx, fetcher.ReadEntryBundle, number, size)
		if err != nil {
			return err
		}
		if err := included(ctx, builder, bundle, number*256, size, root); err != nil {
			return err
		}
	}
	return nil
}

func included(ctx context.Context, builder *client.ProofBuilder, bundle api.EntryBundle, first, size uint64, root tlog.Hash) error {
	for place, entry := range bundle.Entries {
		index := first + uint64(place)
		inclusion, err := builder.InclusionProof(ctx, index)
		if err != nil {
			return err
		}
		leaf := rfc6962.DefaultHasher.HashLeaf(entry)
		if err := proof.VerifyInclusion(rfc6962.DefaultHasher, index, size, leaf, inclusion, root[:]); err != nil {
			return fmt.Errorf("entry %d: %w", index, err)
		}
	}
	return nil
}

func sizeAndRoot(text string) (int64, tlog.Hash, error) {
	size, root, _ := strings.Cut(text, ":")
	number, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		return 0, tlog.Hash{}, err
	}
	hash, err := hex.DecodeString(root)
	if err != nil || len(hash) != tlog.HashSize {
		return 0, tlog.Hash{}, fmt.Errorf("%q is no root", root)
	}
	return number, tlog.Hash(hash), nil
}
