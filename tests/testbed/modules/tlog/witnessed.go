package main

import (
	"context"
	"fmt"
	"net/url"
	"time"

	"github.com/transparency-dev/tessera"
	"github.com/transparency-dev/tessera/storage/posix"
	"golang.org/x/mod/sumdb/note"
)

// witnessed grows a log of Tessera's, whose checkpoints are published only when the witness has cosigned them.
func witnessed(ctx context.Context, directory, key, cosigner, witness string) (result, error) {
	signer, err := note.NewSigner(key)
	if err != nil {
		return nil, err
	}
	address, err := url.Parse(witness)
	if err != nil {
		return nil, err
	}
	known, err := tessera.NewWitness(cosigner, address)
	if err != nil {
		return nil, err
	}
	driver, err := posix.New(ctx, posix.Config{Path: directory})
	if err != nil {
		return nil, err
	}
	options := tessera.NewAppendOptions().WithCheckpointSigner(signer).WithBatching(16, 50*time.Millisecond).
		WithCheckpointInterval(100*time.Millisecond).WithWitnesses(tessera.NewWitnessGroup(1, known), nil)
	appender, shutdown, reader, err := tessera.NewAppender(ctx, driver, options)
	if err != nil {
		return nil, err
	}
	awaiter := tessera.NewPublicationAwaiter(ctx, reader.ReadCheckpoint, 50*time.Millisecond)
	published := []string{}
	for number := range 5 {
		entry := tessera.NewEntry(fmt.Appendf(nil, "entry %d", number))
		_, checkpoint, err := awaiter.Await(ctx, appender.Add(ctx, entry))
		if err != nil {
			return nil, err
		}
		published = append(published, string(checkpoint))
	}
	return result{"published": published}, shutdown(ctx)
}
