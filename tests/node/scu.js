// A DICOM SCU by dcmjs-dimse: `node scu.js OPERATION JSON`. Prints a line of JSON for each response,
// and at the end one with what went wrong on the network, if anything did.
const dimse = require('dcmjs-dimse');
const { Client } = dimse;
const { CEchoRequest, CFindRequest, CStoreRequest, CMoveRequest, CGetRequest } = dimse.requests;
const { CStoreResponse } = dimse.responses;

dimse.log.setLevel('silent');

const [, , operation, text] = process.argv;
const given = JSON.parse(text);
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const requests = {
  echo: () => [new CEchoRequest()],
  store: () => given.files.map((file) => new CStoreRequest(file)),
  find: () => [CFindRequest.createStudyFindRequest(given.keys)],
  worklist: () => [CFindRequest.createWorklistFindRequest(given.keys)],
  move: () => [CMoveRequest.createStudyMoveRequest(given.to, given.study)],
  get: () => [CGetRequest.createStudyGetRequest(given.study)],
}[operation]();

const client = new Client();
for (const request of requests) {
  request.on('response', (response) => {
    const line = { status: response.getStatus() };
    if (response.hasDataset()) line.dataset = response.getDataset().getElements();
    if (response.getCompleted) line.completed = response.getCompleted();
    say(line);
  });
  client.addRequest(request);
}
client.on('cStoreRequest', (request, callback) => {
  say({ stored: request.getDataset().getElement('SOPInstanceUID') });
  const response = CStoreResponse.fromRequest(request);
  response.setStatus(0x0000);
  callback(response);
});
client.on('associationRejected', (rejected) => say({ rejected }));
client.on('networkError', (error) => say({ error: error.message }));
client.send('127.0.0.1', given.port, given.calling || 'DCMJS', given.called || 'AXIOM', {
  userIdentity: given.userIdentity,
  securityOptions: given.security,
});
