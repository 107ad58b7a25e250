// An OpenID provider on a free port of the loopback interface, told what to be by its first line of input: the
// configuration of `oidc-provider` as JSON. Functions can't be said in JSON, so what needs one is named here. It writes
// its issuer on a line of its own once it answers, and ends when its input does. With `tls` (files: `key`, `cert`) it
// speaks https.
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createSecureServer } from 'node:https'
import { createInterface } from 'node:readline'
import { Provider } from 'oidc-provider'

const input = createInterface({ input: process.stdin })
input.on('close', () => process.exit())
input.once('line', (line) => {
  const { people = {}, tls, ...configuration } = JSON.parse(line)
  const server = tls
    ? createSecureServer({ key: readFileSync(tls.key), cert: readFileSync(tls.cert) })
    : createServer()
  server.listen(0, '127.0.0.1', () => {
    const issuer = `${tls ? 'https' : 'http'}://127.0.0.1:${server.address().port}`
    if (configuration.features?.dPoP?.nonceSecret) {
      configuration.features.dPoP.nonceSecret = Buffer.from(configuration.features.dPoP.nonceSecret, 'hex')
      configuration.features.dPoP.requireNonce = () => true
    }
    // Whoever signs in is one of `people` (subject to claims).
    configuration.findAccount = (_, subject) =>
      people[subject] && { accountId: subject, claims: () => ({ sub: subject, ...people[subject] }) }
    // It keeps away from loopback addresses by a dispatcher of its own; here everybody is at one.
    configuration.fetch = (url, { dispatcher, ...options }) => fetch(url, options)
    const provider = new Provider(issuer, configuration)
    provider.on('backchannel.error', (_, error) => process.stderr.write(`${error.stack}\n${error.cause}\n`))
    server.on('request', provider.callback())
    process.stdout.write(`${issuer}\n`)
  })
})
