package main

import (
	"crypto/ed25519"
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"

	"filippo.io/torchwood"
	fnote "github.com/transparency-dev/formats/note"
	fproof "github.com/transparency-dev/formats/proof"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

func receipt(key, receiptFile, entryFile string) (result, error) {
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return nil, err
	}
	text, err := os.ReadFile(receiptFile)
	if err != nil {
		return nil, err
	}
	entry, err := os.ReadFile(entryFile)
	if err != nil {
		return nil, err
	}
	policy := torchwood.ThresholdPolicy(2,
		torchwood.SingleVerifierPolicy(verifier), torchwood.OriginPolicy(verifier.Name()))
	if err := torchwood.VerifyProof(policy, tlog.RecordHash(entry), text); err != nil {
		return nil, fmt.Errorf("torchwood: %w", err)
	}
	parsed := fproof.TLogProof{}
	if err := parsed.Unmarshal(text); err != nil {
		return nil, fmt.Errorf("formats: %w", err)
	}
	if string(parsed.Marshal()) != string(text) {
		return nil, errors.New("formats: written again it is another text")
	}
	return result{"index": parsed.Index}, nil
}

func cosigned(file, key string, cosigners []string) (result, error) {
	signed, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	verifier, err := note.NewVerifier(key)
	if err != nil {
		return nil, err
	}
	policies := []torchwood.Policy{torchwood.SingleVerifierPolicy(verifier), torchwood.OriginPolicy(verifier.Name())}
	times := []int64{}
	for _, one := range cosigners {
		cosigner, err := torchwood.NewCosignatureVerifier(one)
		if err != nil {
			return nil, fmt.Errorf("torchwood: %w", err)
		}
		policies = append(policies, torchwood.SingleVerifierPolicy(cosigner))
		other, err := fnote.NewVerifierForCosignatureV1(one)
		if err != nil {
			return nil, fmt.Errorf("formats: %w", err)
		}
		opened, err := note.Open(signed, note.VerifierList(other))
		if err != nil {
			return nil, fmt.Errorf("formats: %w", err)
		}
		moment, err := fnote.CoSigV1Timestamp(opened.Sigs[0])
		if err != nil {
			return nil, fmt.Errorf("formats: %w", err)
		}
		times = append(times, moment.Unix())
	}
	if _, _, err := torchwood.VerifyCheckpoint(signed, torchwood.ThresholdPolicy(len(policies), policies...)); err != nil {
		return nil, fmt.Errorf("torchwood: %w", err)
	}
	return result{"times": times}, nil
}

func sign(key, file string) (result, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	signer, err := note.NewSigner(key)
	if err != nil {
		return nil, err
	}
	signed, err := note.Sign(&note.Note{Text: string(text)}, signer)
	return result{"note": string(signed)}, err
}

func cosign(name, seed, file string) (result, error) {
	signed, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	raw, err := base64.StdEncoding.DecodeString(seed)
	if err != nil {
		return nil, err
	}
	signer, err := torchwood.NewCosignatureSigner(name, ed25519.NewKeyFromSeed(raw))
	if err != nil {
		return nil, err
	}
	text, _, _ := strings.Cut(string(signed), "\n\n")
	cosigned, err := note.Sign(&note.Note{Text: text + "\n"}, signer)
	return result{"note": string(cosigned), "vkey": signer.Verifier().String()}, err
}

func vkey(key string) (result, error) {
	signer, verifier, err := fnote.NewEd25519SignerVerifier(key)
	if err != nil {
		return nil, err
	}
	other, err := torchwood.NewVerifierFromSigner(key)
	if err != nil {
		return nil, err
	}
	if signer.KeyHash() != verifier.KeyHash() || other.KeyHash() != verifier.KeyHash() {
		return nil, errors.New("three key hashes")
	}
	return result{"name": verifier.Name(), "hash": fmt.Sprintf("%08x", verifier.KeyHash())}, nil
}
