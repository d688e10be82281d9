// Reads a tree of ours with OpenZeppelin's library, builds it anew from its values, and prints what that library says.
// usage: node check-tree.js TREE.json
import { readFileSync } from 'node:fs';
import { StandardMerkleTree } from '@openzeppelin/merkle-tree';

const stored = JSON.parse(readFileSync(process.argv[2], 'utf8'));
const loaded = StandardMerkleTree.load(stored);
loaded.validate();

const values = [...loaded.entries()].map(([, value]) => value);
const built = StandardMerkleTree.of(values, stored.leafEncoding);
const proofs = values.map((value) => loaded.getProof(value));
const verified = values.every((value, n) =>
  StandardMerkleTree.verify(built.root, stored.leafEncoding, value, proofs[n]));

console.log(JSON.stringify({
  loadedRoot: loaded.root,
  builtRoot: built.root,
  builtTree: built.dump().tree,
  proofs,
  verified,
}));
