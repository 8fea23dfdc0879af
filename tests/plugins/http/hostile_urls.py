"""URLs that try to lead the appliance to where it must not go, and what names say meanwhile.

``{port}`` stands for the port of a canary on this machine. 93.184.216.34 is the one public address
in it. Sources: LocalAI's list, the notes on vLLM's CVE-2026-24779, the WHATWG URL standard's tests.
"""

# What a name server that an attacker owns, or the one of this network, could say.
NAMES = {
    "localhost": ["127.0.0.1", "::1"],
    "localhost.": ["127.0.0.1"],
    "intern.example": ["10.0.0.5"],
    "six.example": ["fd00::5"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "scoped.example": ["fe80::1%lo"],
    "mixed.example": ["93.184.216.34", "127.0.0.1"],
    "mixed-six.example": ["2606:2800:220:1::1", "::1"],
    "metadata.google.internal": ["169.254.169.254"],
    "metadata": ["169.254.169.254"],
    "instance-data": ["169.254.169.254"],
    "metadata.tencentyun.com": ["169.254.0.23"],
    "metadata.azure.example": ["168.63.129.16", "169.254.169.254"],
    "alibaba.example": ["100.100.100.200"],
    "empty.example": [],
    "nip.127.0.0.1.example": ["127.0.0.1"],
}
CORPUS = """
http://127.0.0.1:{port}/
http://127.0.0.1/
http://127.1:{port}/
http://127.0.1:{port}/
http://2130706433:{port}/
http://0x7f000001:{port}/
http://0x7f.0.0.1:{port}/
http://0X7F.1:{port}/
http://017700000001:{port}/
http://0177.0.0.1:{port}/
http://0177.0.0.01:{port}/
http://127.0.0.1.:{port}/
http://127.000.000.001:{port}/
http://127.0.0.0x1:{port}/
http://4294967295/
http://1e3/0x
http://127.0.0.2:{port}/
http://localhost:{port}/
http://LOCALHOST:{port}/
http://localhost.:{port}/
http://0.0.0.0:{port}/
http://0:{port}/
http://0.0.0.0.:{port}/
http://[::]:{port}/
http://[::1]:{port}/
http://[0:0:0:0:0:0:0:1]:{port}/
http://[::ffff:127.0.0.1]:{port}/
http://[::ffff:7f00:1]:{port}/
http://[::ffff:10.0.0.1]/
http://[::ffff:169.254.169.254]/
http://[::127.0.0.1]:{port}/
http://[64:ff9b::127.0.0.1]:{port}/
http://[64:ff9b::7f00:1]/
http://[64:ff9b:1::7f00:1]/
http://[2002:7f00:1::]/
http://[2001:0:7f00:1::]/
http://[2001:db8::1]/
http://[fe80::1]/
http://[fe80::1%25lo]:{port}/
http://[fc00::1]/
http://[fec0::1]/
http://[ff02::1]/
http://[::1:{port}/
http://::1:{port}/
http://10.0.0.1/
http://172.16.0.1/
http://192.168.0.1/
http://100.64.0.1/
http://100.100.100.200/latest/meta-data/
http://169.254.169.254/latest/meta-data/
http://192.0.0.192/
http://198.18.0.1/
http://192.88.99.1/
http://224.0.0.1/
http://240.0.0.1/
http://255.255.255.255/
http://metadata.google.internal/computeMetadata/v1/
http://metadata/
http://instance-data/latest/
http://metadata.tencentyun.com/
http://metadata.azure.example/
http://alibaba.example/
http://intern.example/
http://six.example/
http://mapped.example:{port}/
http://scoped.example/
http://mixed.example/
http://mixed-six.example/
http://nip.127.0.0.1.example/
http://empty.example/
http://unknown.example/
http://93.184.216.34:{port}/
http://93.184.216.34:22/
http://93.184.216.34:6379/
https://93.184.216.34:8443/
http://93.184.216.34:0/
http://93.184.216.34:65536/
http://93.184.216.34:/@127.0.0.1:{port}/
http://user@93.184.216.34/
http://user:pw@127.0.0.1:{port}/
http://93.184.216.34@127.0.0.1:{port}/
http://127.0.0.1:{port}@93.184.216.34/
http://93.184.216.34#@127.0.0.1:{port}@/
http://93.184.216.34\\@127.0.0.1:{port}/
http://127.0.0.1:{port}\\@93.184.216.34/
http:\\\\127.0.0.1:{port}/
http:/127.0.0.1:{port}/
http:127.0.0.1:{port}/
http:///127.0.0.1:{port}/
http://127.0.0.1:{port}%2f@93.184.216.34/
http://%31%32%37.0.0.1:{port}/
http://127.0.0.1%00.example/
http://exa mple.example/
http://93.184.216.34/ HTTP/1.1%0d%0aHost: x
http://①②⑦.⓪.⓪.①:{port}/
http://127。0。0。1:{port}/
http://127.0.0.1:{port}/
http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ:{port}/
http://[①::]/
http://xn--/
http://-.example./..:{port}
//127.0.0.1:{port}/
127.0.0.1:{port}/
/etc/passwd
file:///etc/passwd
file://127.0.0.1/etc/passwd
gopher://127.0.0.1:{port}/_GET
ftp://127.0.0.1:{port}/
dict://127.0.0.1:{port}/d
ldap://127.0.0.1:{port}/
jar:http://127.0.0.1:{port}/!/
view-source:http://127.0.0.1:{port}/
ws://127.0.0.1:{port}/
httpx://127.0.0.1:{port}/
javascript:alert(1)
"""
CONTROLS = ("http://127.0.0.1:{port}/\r\nx: y", "http://1\t27.0.0.1:{port}/", "http://a\0.example/")


def urls() -> list[str]:
    """All of them."""
    return [line for line in CORPUS.split("\n") if line] + list(CONTROLS)
